// Edits: a dialog with a preview, then the edit, then a way back.

import { ask, readInfo, server } from "./api.js";
import { at, button, byId, make, reported, shownText, table, tell } from "./dom.js";

const dialog = byId("confirm");
const [field, label] = [byId("confirm-label-field"), byId("confirm-label")];
const [effect, save] = [byId("confirm-effect"), byId("confirm-save")];
const SHOWN = 20;
const HELD_OUT = () =>
  make("p", { className: "soft" }, "Held-out texts have known labels, and the student was not trained on them.");
const UNCHANGED = "Nothing changes: an edit gave the row this label before.";

let current = null;
let previews = 0;
const marks = new Map(); // the function `mark` of each edit, by the edit's number

/**
 * Ask whether an edit is to be made, and make it.
 * An edit has `title`, `text`, `path`, `body`, and `label` ("" lets the user choose one; missing: it has none);
 * `mark`, if there is one, is called with the label when it is saved, and without it when it is undone.
 */
export function confirmEdit(edit) {
  current = edit;
  byId("confirm-title").textContent = edit.title;
  byId("confirm-text").textContent = edit.text === undefined ? "" : shownText(edit.text);
  byId("confirm-why").value = "";
  field.hidden = edit.label === undefined;
  label.required = !field.hidden;
  label.value = edit.label ?? "";
  dialog.showModal();
  (edit.label === "" ? label : save).focus();
  preview();
}

/** The edit that corrects the answer to a text. */
export const correction = (text, chosen) => ({
  title: "Correct the answer",
  text,
  label: chosen,
  path: "/kb/add",
  body: { rows: [{ text: Array.isArray(text) ? text[0] : text, text_pair: Array.isArray(text) ? text[1] : undefined }] },
});

export const relabelling = (row, chosen = "") => ({
  title: `Change the label of row ${row.id}`,
  text: row.text,
  label: chosen,
  path: "/kb/relabel",
  body: { ids: [row.id] },
});

export const removal = (row) => ({
  title: `Remove row ${row.id}`,
  text: row.text,
  path: "/kb/remove",
  body: { ids: [row.id] },
});

export const undoing = (seq) => ({ title: `Take edit ${seq} back`, path: "/kb/undo", body: { seq } });

function request() {
  const body = structuredClone(current.body);
  if (!field.hidden) {
    const name = label.value.trim();
    if (body.rows) body.rows[0].label = name;
    else body.label = name;
    body.new_labels = !server.labels.includes(name);
  }
  const why = byId("confirm-why").value.trim();
  return why ? { ...body, why } : body;
}

async function preview() {
  const mine = ++previews;
  const name = label.value.trim();
  save.disabled = !field.hidden && !name;
  if (save.disabled) {
    effect.replaceChildren(make("p", { className: "soft" }, "Choose a label, or write a new one."));
    return;
  }
  effect.replaceChildren(make("p", { className: "soft" }, "What else changes is being computed."));
  const shown = [];
  if (!field.hidden && !server.labels.includes(name)) shown.push(make("p", {}, `“${name}” is a new label.`));
  try {
    const { flips } = await ask(current.path, { ...request(), preview: true });
    if (mine === previews) save.disabled = flips === null;
    shown.push(...(flips === null ? [make("p", {}, UNCHANGED)] : described(flips)));
  } catch (error) {
    // 424: the bundle has no held-out rows, so nothing can be said; the edit is possible.
    if (mine === previews) save.disabled = error.status !== 424;
    shown.push(make("p", { className: save.disabled ? "bad" : "soft" }, `No preview: ${error.message}`));
  }
  if (mine === previews) effect.replaceChildren(...shown);
}

function described(flips) {
  if (!flips.length) return [make("p", {}, "No held-out text gets another answer."), HELD_OUT()];
  const right = (side) => flips.filter((flip) => flip[side] === flip.gold).length;
  const one = flips.length === 1;
  const sum = `${flips.length} held-out ${one ? "text gets" : "texts get"} another answer: ${right("after")} become right, ${right("before")} become wrong.`;
  const rows = flips.slice(0, SHOWN).map((flip) => [flip.before, flip.after, flip.gold]);
  return [make("p", {}, sum), HELD_OUT(), table("Changed answers", ["Before", "After", "Right"], rows)];
}

async function carryOut(path, body, mark) {
  const done = await ask(path, body);
  await readInfo();
  if (done.seq === null) {
    tell(UNCHANGED);
    return;
  }
  marks.set(done.seq, mark);
  marks.get(body.seq)?.();
  const undo = button("Undo", reported(() => carryOut("/kb/undo", { seq: done.seq })));
  tell(`Saved as edit ${done.seq}.`, { buttons: [undo] });
  document.dispatchEvent(new Event("edited"));
}

// Not at the dialog's event "close": it comes late, when the dialog may be open again for another edit.
at(dialog.querySelector("form"), "submit", async (event) => {
  if (event.submitter.value !== "save") return;
  const [{ path, mark }, name] = [current, label.value.trim()];
  await carryOut(path, request(), mark);
  mark?.(name);
});
label.addEventListener("change", preview);
label.addEventListener("input", () => {
  save.disabled = !label.value.trim();
});
