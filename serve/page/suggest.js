// "What to label next": the texts of a list that are worth labelling, and their labels.

import { ask } from "./api.js";
import { at, button, byId, make, shownText, table, tell } from "./dom.js";
import { confirmEdit, correction } from "./edit.js";
import { inputOf, portion, setUpList, textsIn } from "./list.js";

const SHOWN = 50;
const LEAST = 0.01; // probability of the second label from which it is offered

let chosen = []; // with `given`, the label that the user gave
let asked = 0;

export function setUp() {
  const form = byId("suggest-form");
  setUpList(form, "unlabelled", "unlabelled-file");
  at(form, "submit", choose);
}

export function forget() {
  chosen = [];
  asked++;
  byId("suggestions").replaceChildren();
}

async function choose() {
  const texts = textsIn("unlabelled");
  if (!texts.length) throw new Error("There is no text.");
  const given = portion(texts);
  const mine = ++asked;
  byId("suggest").disabled = true;
  tell("The texts are being read.");
  try {
    const { suggestions } = await ask("/kb/suggest", { inputs: given.map(inputOf), count: SHOWN });
    if (mine !== asked) return; // another bundle was chosen meanwhile
    chosen = suggestions;
    show();
    tell(told(chosen.length, given.length, texts.length));
  } finally {
    byId("suggest").disabled = false;
  }
}

function told(count, read, all) {
  const of = read < all ? `the first ${read} of ${all} texts, as many as fit into a request` : `${all} ${all === 1 ? "text" : "texts"}`;
  return `Chosen: ${count} of ${of}.${count ? "" : " The knowledge base has these texts, or almost the same ones."}`;
}

function show() {
  const rows = chosen.map((one) => [
    [make("span", {}, shownText(one.text), make("small", { className: "soft" }, one.reason)), "text"],
    one.given === undefined ? choices(one) : `Labelled ${one.given}`,
  ]);
  byId("suggestions").replaceChildren(rows.length ? table("The most useful first", ["Text, and why", "Label"], rows) : "");
}

function choices(one) {
  const labelled = (name) => () => confirmEdit({ ...correction(one.text, name), title: "Label this text", mark: (given) => mark(one, given) });
  return make(
    "span",
    { className: "choices" },
    ...(one.second_probability < LEAST ? [one.label] : [one.label, one.second]).map((name) =>
      button(name, labelled(name), { "aria-label": `Label text ${one.place + 1} ${name}` }),
    ),
    button("Another label …", labelled(""), { "aria-label": `Another label for text ${one.place + 1}` }),
  );
}

/** Show that a text has got a label, and go on to the next one without; or that the label was taken back. */
function mark(one, given) {
  one.given = given;
  show();
  if (given === undefined) return;
  const next = chosen.findIndex((other, place) => place > chosen.indexOf(one) && other.given === undefined);
  if (next !== -1) byId("suggestions").querySelectorAll("tbody tr")[next].querySelector("button").focus();
}
