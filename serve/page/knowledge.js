// The knowledge base: its rows, its likely wrong labels, and the log of its edits.

import { ask, mayEdit, server, withQuery } from "./api.js";
import { at, button, byId, make, percent, reported, shownText, table, tell } from "./dom.js";
import { confirmEdit, relabelling, removal, undoing } from "./edit.js";

const OFF = "The server shows stored rows only where edits are allowed: start it with --allow-edits, or use reaugkd ui.";
const [ISSUES, EDITS] = [50, 100];

let sought = null;

export function setUp() {
  at(byId("rows-form"), "submit", () => find(true));
  at(byId("find-wrong"), "click", review);
}

export function forget() {
  sought = null;
  for (const id of ["found", "issues", "edits"]) byId(id).replaceChildren();
}

/** Show the part of the page; again after an edit. */
export async function show(part) {
  const place = { rows: "found", review: "issues", next: "suggestions", log: "edits" }[part];
  if (!mayEdit()) {
    byId(place).replaceChildren(make("p", {}, OFF));
    return;
  }
  if (part === "rows") await find(false);
  else if (part === "log") await log();
  else if (part === "review" && byId("issues").childElementCount) await review();
}

async function find(anew) {
  const chosen = byId("row-label").value;
  byId("row-label").replaceChildren(
    make("option", { value: "" }, "all"),
    ...server.labels.map((name) => make("option", { value: name }, name)),
  );
  byId("row-label").value = server.labels.includes(chosen) ? chosen : "";
  if (anew || sought === null) sought = { q: byId("part").value, label: byId("row-label").value, offset: 0 };
  const found = await ask(withQuery("/kb/rows", sought));
  const parts = [
    table(
      found.rows.length ? `${found.rows.length} of ${found.of} stored rows` : "No row was found",
      ["Text", "Label", "Id", ""],
      found.rows.map((row) => [
        [shownText(row.text), "text"],
        row.edited ? `${row.label} (by an edit)` : row.label,
        [String(row.id), "n"],
        make(
          "span",
          { className: "tools" },
          button("Relabel …", () => confirmEdit(relabelling(row)), { "aria-label": `Relabel row ${row.id}` }),
          button("Remove", () => confirmEdit(removal(row)), { "aria-label": `Remove row ${row.id}` }),
        ),
      ]),
    ),
  ];
  const turn = (offset) =>
    reported(() => {
      sought = { ...sought, offset };
      return find(false);
    });
  const pages = [];
  if (sought.offset) pages.push(button("Back to the first rows", turn(0)));
  if (found.next !== null) pages.push(button("Next rows", turn(found.next)));
  byId("found").replaceChildren(...parts, make("div", { className: "tools" }, ...pages));
}

async function review() {
  byId("find-wrong").disabled = true;
  tell("All labels are being checked.");
  try {
    const found = await ask(withQuery("/kb/review"));
    tell(`${found.issues.length} of ${found.checked} labels are likely wrong.`);
    const rows = found.issues.slice(0, ISSUES).map((issue) => [
      [shownText(issue.text), "text"],
      issue.label,
      `${issue.suggested} (${percent(issue.suggested_probability)})`,
      make(
        "span",
        { className: "tools" },
        button("Accept", () => confirmEdit(relabelling(issue, issue.suggested)), {
          "aria-label": `Give row ${issue.id} the label ${issue.suggested}`,
        }),
        button("Keep", () => confirmEdit(relabelling(issue, issue.label)), {
          "aria-label": `Keep the label ${issue.label} of row ${issue.id}`,
        }),
      ),
    ]);
    const shown = found.issues.length > ISSUES ? `The worst ${ISSUES} of ${found.issues.length}` : "All of them, the worst first";
    byId("issues").replaceChildren(
      rows.length ? table(shown, ["Text", "Label now", "Its neighbours say", ""], rows) : "",
    );
  } finally {
    byId("find-wrong").disabled = false;
  }
}

async function log() {
  const { edits } = await ask(withQuery("/kb/log", { last: EDITS }));
  const undone = new Map(); // edit -> the undo that holds now
  for (const edit of edits) {
    if (!edit.undoes) continue;
    undone.set(edit.undoes, edit.seq);
    const former = edits.find((one) => one.seq === edit.undoes);
    if (former?.undoes) undone.delete(former.undoes);
  }
  const rows = edits.reverse().map((edit) => [
    [String(edit.seq), "n"],
    edit.time.replace("T", " ").replace("Z", ""),
    edit.who,
    [summary(edit), "text"],
    edit.why,
    ["add", "remove", "relabel", "undo"].includes(edit.op)
      ? undone.has(edit.seq)
        ? `taken back by ${undone.get(edit.seq)}`
        : button("Undo", () => confirmEdit(undoing(edit.seq)), { "aria-label": `Take edit ${edit.seq} back` })
      : "",
  ]);
  byId("edits").replaceChildren(
    rows.length
      ? table("The last edits, newest first", ["No.", "Time (UTC)", "Who", "Edit", "Why", ""], rows)
      : make("p", {}, "There are no edits."),
  );
}

function summary(edit) {
  if (edit.op === "undo") return `undo of edit ${edit.undoes}`;
  if (edit.op === "fit") return "fit of the classifier of new labels, by the server";
  const name = (labelling) => labelling.label ?? Object.keys(labelling.soft).join(" / ");
  const parts = [
    ...edit.add.map((row) => `+ ${row.payload ? shownText(row.payload.text) : `row ${row.id}`} → ${name(row.labelling)}`),
    ...edit.relabel.map((row) => `row ${row.id}: ${name(row.old)} → ${name(row.new)}`),
    ...edit.remove.map((id) => `− row ${id}`),
  ];
  const more = parts.length > 3 ? ` and ${parts.length - 3} more` : "";
  return parts.length ? parts.slice(0, 3).join("; ") + more : edit.op;
}
