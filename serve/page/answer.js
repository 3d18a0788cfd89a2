// "Try a text": the answer, where it comes from, and its correction.

import { ask, mayEdit, server } from "./api.js";
import { at, bar, button, byId, make, percent, shownText, table, tell } from "./dom.js";
import { confirmEdit, correction } from "./edit.js";

const [TOP, NEIGHBOURS] = [5, 10];
const REASONS = {
  never: "the server does not retrieve",
  empty: "there are no stored rows",
  weight: "this bundle gives neighbours no weight",
  sure: "it was sure enough",
  budget: "a search would have taken too long",
};

let last = null;
let asked = 0;

export function setUp() {
  at(byId("try-form"), "submit", () => answer(written()));
  for (const area of [byId("text"), byId("second")]) {
    area.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      byId("try-form").requestSubmit();
    });
  }
  at(document, "edited", () => last !== null && answer(last, false));
}

export function forget() {
  last = null;
  asked++;
  byId("answer").replaceChildren();
}

function written() {
  const first = byId("text").value;
  return server.info.reaugkd.text_pair ? [first, byId("second").value] : first;
}

async function answer(text, announced = true) {
  const input = Array.isArray(text) ? { text: text[0], text_pair: text[1] } : text;
  const body = { inputs: [input], top_k: server.labels.length, explain: NEIGHBOURS };
  const goal = byId("abstain").value;
  if (goal) body.abstain = goal;
  const mine = ++asked;
  const found = (await ask("/v1/predict", body)).predictions[0];
  if (mine !== asked) return; // a later text was asked meanwhile
  last = text;
  byId("answer").replaceChildren(...shown(text, found));
  if (announced) tell(`Answer: ${found.label}, ${percent(found.score)}`);
}

function shown(text, found) {
  const parts = [
    make("p", { className: "result" }, found.label, " ", make("span", { className: "soft" }, percent(found.score))),
    make("ul", { className: "notes" }, ...notes(found).map((note) => make("li", {}, note))),
    scores(text, found),
  ];
  if (mayEdit()) {
    parts.push(make("div", { className: "tools" }, button("Another label …", () => correct(text, ""))));
  } else {
    parts.push(make("p", { className: "soft" }, "Corrections are off. Start the server with --allow-edits, or use reaugkd ui."));
  }
  if (found.neighbours.length) parts.push(neighbours(found.neighbours));
  return parts;
}

function notes(found) {
  const all = [];
  if (found.abstained) all.push(`Abstained: this answer is too uncertain for the goal (${found.abstention}).`);
  if (found.truncated) all.push(`Only the beginning of the text was read: ${found.tokens} tokens.`);
  if (!found.retrieved) {
    all.push(`The student answered alone: ${REASONS[found.reason] ?? found.reason}.`);
  } else {
    const alone = found.student_scores[0];
    all.push(
      alone.label === found.label
        ? `Without neighbours the answer would be the same, with ${percent(alone.score)}.`
        : `Without neighbours the answer would be ${alone.label}, with ${percent(alone.score)}.`,
    );
    all.push(`Share of the student in this answer: ${percent(found.student_weight)}.`);
  }
  if (found.prediction_set) {
    const names = found.prediction_set;
    all.push(`Labels that include the right one for 90 % of texts: ${names.length ? names.join(", ") : "none"}.`);
  }
  return all;
}

function scores(text, found) {
  const named = (list) => new Map((list ?? []).map((one) => [one.label, one.score]));
  const [student, near] = [named(found.student_scores), named(found.retrieval_scores)];
  const share = (map, label) => (map.has(label) ? percent(map.get(label)) : "–");
  const rows = found.scores.slice(0, TOP).map(({ label, score }) => [
    [label, "text"],
    [bar(score, label), "bar"],
    [percent(score), "n"],
    [share(student, label), "n"],
    [share(near, label), "n"],
    ...(mayEdit() ? [button("This is right", () => correct(text, label), { "aria-label": `${label} is right` })] : []),
  ]);
  const heads = ["Label", "", "Answer", "Student", "Neighbours", ...(mayEdit() ? [""] : [])];
  return table("The most probable labels", heads, rows);
}

function neighbours(rows) {
  return table(
    "The nearest stored rows",
    ["Text", "Label", "Similarity", "Weight", "Id"],
    rows.map((row) => [
      [shownText(row.text), "text"],
      row.gold_label ?? row.label,
      [row.similarity.toFixed(3), "n"],
      [percent(row.weight), "n"],
      [String(row.id), "n"],
    ]),
  );
}

function correct(text, label) {
  confirmEdit(correction(text, label));
}
