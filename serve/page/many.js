// "Many texts": a pasted or dropped list of texts, its answers, and their file.

import { ask, mayEdit, pause, server } from "./api.js";
import { at, button, byId, make, percent, shownText, table, tell } from "./dom.js";
import { csvOf } from "./csv.js";
import { confirmEdit, correction } from "./edit.js";
import { inputOf, portion, setUpList, textsIn } from "./list.js";

const SHOWN = 100;

let answered = [];
let stopped = false;

export function setUp() {
  const form = byId("file-form");
  setUpList(form, "texts", "upload");
  at(form, "submit", answerAll);
  at(byId("download"), "click", download);
  byId("stop").addEventListener("click", () => (stopped = true));
}

async function answerAll() {
  const texts = textsIn("texts");
  if (!texts.length) throw new Error("There is no text.");
  const progress = byId("progress");
  [answered, stopped] = [[], false];
  progress.max = texts.length;
  progress.value = 0;
  byId("download").hidden = true;
  byId("stop").hidden = progress.hidden = false;
  try {
    while (answered.length < texts.length && !stopped) {
      const part = portion(texts.slice(answered.length, answered.length + server.info.max_client_batch_size));
      const inputs = part.map(inputOf);
      const { predictions } = await patiently({ inputs, on_error: "record", abstain: byId("abstain").value || undefined });
      predictions.forEach((found, place) => answered.push({ text: part[place], ...found }));
      progress.value = answered.length;
    }
  } finally {
    byId("stop").hidden = progress.hidden = true;
    byId("download").hidden = !answered.length;
    show();
  }
  tell(`${answered.length} of ${texts.length} texts are answered.`);
}

/** Answers, after a while if the server has too much to do. */
async function patiently(body) {
  for (;;) {
    try {
      return await ask("/v1/predict", body);
    } catch (error) {
      if (error.status !== 429 || stopped) throw error;
      await pause(error.retryAfter);
    }
  }
}

function show() {
  const unsure = answered.map((one, number) => ({ ...one, number: number + 1 }));
  unsure.sort((one, other) => (one.score ?? -1) - (other.score ?? -1) || one.number - other.number);
  const rows = unsure.slice(0, SHOWN).map((one) => [
    [String(one.number), "n"],
    [shownText(one.text), "text"],
    one.error ? [one.error, "bad"] : named(one),
    [one.error ? "" : percent(one.score), "n"],
    ...(mayEdit()
      ? [one.error ? "" : button("Correct …", () => correct(one), { "aria-label": `Correct text ${one.number}` })]
      : []),
  ]);
  const caption = answered.length > SHOWN ? `The ${SHOWN} least sure of ${answered.length} answers` : "Answers, the least sure first";
  const heads = ["Line", "Text", "Label", "Probability", ...(mayEdit() ? [""] : [])];
  byId("answers").replaceChildren(rows.length ? table(caption, heads, rows) : "");
}

function named(one) {
  if (one.given !== undefined) return `${one.given} (corrected)`;
  return one.label + (one.abstained ? " (abstained)" : "") + (one.truncated ? " (truncated)" : "");
}

function correct(one) {
  const mark = (given) => {
    answered[one.number - 1].given = given;
    show();
  };
  confirmEdit({ ...correction(one.text, one.label), mark });
}

export function forget() {
  answered = [];
  stopped = true;
  byId("answers").replaceChildren();
  byId("download").hidden = true;
}

function download() {
  const pairs = server.info.reaugkd.text_pair;
  const heads = [...(pairs ? ["text", "text_pair"] : ["text"]), "label", "probability", "abstained", "truncated", "error"];
  const rows = answered.map((one) => [
    ...(pairs ? one.text : [one.text]),
    one.label ?? "",
    one.score ?? "",
    one.abstained ?? "",
    one.truncated ?? "",
    one.error ?? "",
  ]);
  const address = URL.createObjectURL(new Blob([csvOf([heads, ...rows])], { type: "text/csv" }));
  const link = make("a", { href: address, download: "answers.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
