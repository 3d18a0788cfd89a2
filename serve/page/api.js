// Requests to the server that sent this page.

import { byId } from "./dom.js";

export const server = { key: "", model: null, info: null, labels: [] };

export class ServerError extends Error {
  constructor(message, status, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The JSON answer to a GET, or to a POST of JSON if there is a body. */
export async function ask(path, body) {
  const response = await send(path, body);
  return response.json();
}

export async function askText(path) {
  return (await send(path)).text();
}

async function send(path, body) {
  const headers = {};
  if (server.key) headers.Authorization = `Bearer ${server.key}`;
  const options = { headers };
  if (body !== undefined) {
    options.method = "POST";
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify({ model: server.model ?? undefined, ...body });
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ServerError("The server does not answer. Is it still running?", 0);
  }
  if (response.ok) return response;
  if (response.status === 401) byId("key-form").hidden = false;
  let message;
  try {
    message = (await response.json()).error;
  } catch {
    message = `The server answered with code ${response.status}.`;
  }
  throw new ServerError(message, response.status, Number(response.headers.get("retry-after")) || 1);
}

/** A path with a query, and the bundle that was chosen. */
export function withQuery(path, values = {}) {
  const query = new URLSearchParams({ ...(server.model ? { model: server.model } : {}), ...values });
  return `${path}?${query}`;
}

export const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

/** Read what the server says about the bundle; wait until it is open. */
export async function readInfo() {
  for (;;) {
    try {
      server.info = await ask(withQuery("/info"));
      server.labels = Object.keys(server.info.model_type.classifier.label2id);
      return;
    } catch (error) {
      if (error.status !== 503) throw error;
      await pause(1);
    }
  }
}

export const mayEdit = () => server.info.reaugkd.allow_edits;
