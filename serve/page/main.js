// The start of the page, and which part of it is shown.

import { mayEdit, readInfo, server } from "./api.js";
import { at, byId, make, reported, tell } from "./dom.js";
import * as answer from "./answer.js";
import * as knowledge from "./knowledge.js";
import * as many from "./many.js";
import * as statistics from "./statistics.js";
import * as suggest from "./suggest.js";

const PARTS = ["try", "file", "rows", "review", "next", "log", "statistics"];
const EVERY = 3000; // milliseconds between two looks at the statistics

const chosen = () => (PARTS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "try");

async function showPart() {
  const part = chosen();
  for (const name of PARTS) byId(name).hidden = name !== part;
  for (const link of byId("tabs").querySelectorAll("a")) {
    if (link.hash === `#${part}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId(part === "file" ? "file-tools" : "try-tools").append(byId("abstain-field")); // both parts have this goal
  if (server.info === null) return;
  if (part === "statistics") await statistics.show();
  else if (["rows", "review", "next", "log"].includes(part)) await knowledge.show(part);
}

/** Read the bundle, and show what depends on it. */
async function start() {
  tell("The bundle is being opened.");
  await readInfo();
  describe();
  byId("key-form").hidden = true;
  tell("");
  await showPart();
}

function describe() {
  const { reaugkd, model_id: name } = server.info;
  const models = Object.keys(reaugkd.models);
  byId("about").textContent = `${name} · ${server.labels.length}\u00a0labels · ${reaugkd.rows}\u00a0stored\u00a0rows · edits:\u00a0${reaugkd.edits}`;
  byId("model-field").hidden = models.length < 2;
  byId("model").replaceChildren(...models.map((one) => make("option", { value: one }, one)));
  byId("model").value = name;
  byId("second-field").hidden = !reaugkd.text_pair;
  byId("second").required = reaugkd.text_pair;
  byId("abstain-field").hidden = !reaugkd.abstention;
  if (!reaugkd.abstention) byId("abstain").value = "";
  for (const form of document.querySelectorAll(".edits")) form.hidden = !mayEdit();
  byId("labels").replaceChildren(...server.labels.map((one) => make("option", { value: one })));
}

answer.setUp();
knowledge.setUp();
many.setUp();
suggest.setUp();
at(window, "hashchange", () => {
  if (server.info !== null) tell(""); // it was about another part
  return showPart();
});
at(document, "edited", () => {
  describe();
  return showPart();
});
at(byId("key-form"), "submit", () => {
  server.key = byId("key").value;
  return start();
});
at(byId("model"), "change", () => {
  server.model = byId("model").value;
  for (const part of [answer, knowledge, many, suggest]) part.forget();
  return start();
});
const look = reported(() => server.info !== null && chosen() === "statistics" && !document.hidden && statistics.show());
setInterval(look, EVERY);
showPart();
reported(start)();
