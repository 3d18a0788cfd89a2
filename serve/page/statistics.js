// Counts of the server, from its metrics in Prometheus's text format.

import { askText, server } from "./api.js";
import { bar, byId, make, percent, table } from "./dom.js";

const LABELS = 20;
const SAMPLE = /^reaugkd_([a-z_]+)(?:\{(.*)\})? (\S+)$/;
const PAIR = /([a-z_]+)="((?:[^"\\]|\\.)*)"/g;

export async function show() {
  const { info } = server;
  const samples = parsed(await askText("/metrics")).filter(({ of }) => !of.model || of.model === info.model_id);
  const all = (name) => samples.filter((one) => one.name === name);
  const sum = (name) => all(name).reduce((total, one) => total + one.value, 0);
  const answers = sum("answers_total");
  const share = (count) => (answers ? percent(count / answers) : "–");
  const seconds = sum("latency_seconds_count") ? sum("latency_seconds_sum") / sum("latency_seconds_count") : null;
  const cards = [
    ["Answers", answers],
    ["Mean milliseconds per answer", seconds === null ? "–" : (1000 * seconds).toFixed(1)],
    ["With neighbours", share(sum("retrieved_total"))],
    ["Truncated", share(sum("truncated_total"))],
    ["Abstained", sum("abstained_total")],
    ["Errors", sum("errors_total")],
    ["Rows stored", info.reaugkd.rows],
    ["Edits", info.reaugkd.edits],
  ];
  const byLabel = all("answers_total").sort((one, other) => other.value - one.value);
  byId("numbers").replaceChildren(
    make("dl", { className: "cards" }, ...cards.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value))))),
    drift(all("drift")),
    byLabel.length
      ? table(
          "Answers by label",
          ["Label", "", "Answers"],
          byLabel.slice(0, LABELS).map(({ of, value }) => [of.label, [bar(value / answers, of.label), "bar"], [String(value), "n"]]),
        )
      : "",
  );
}

function drift(samples) {
  if (!samples.length) return make("p", { className: "soft" }, "Drift is shown from 200 answers on, if the bundle has held-out rows.");
  const changed = samples.some(({ value }) => value > 0.25);
  const values = samples.map(({ of, value }) => `${of.histogram} ${value.toFixed(2)}`).join(", ");
  const meaning = changed ? "the texts differ from the held-out rows (above 0.25)" : "the texts are like the held-out rows (below 0.25)";
  return make("p", { className: changed ? "bad" : "" }, `Drift: ${values}: ${meaning}.`);
}

function parsed(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const match = SAMPLE.exec(line);
    if (!match) continue;
    const of = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(PAIR)) {
      of[name] = value.replace(/\\(.)/g, (_, sign) => (sign === "n" ? "\n" : sign));
    }
    found.push({ name: match[1], of, value: Number(match[3]) });
  }
  return found;
}
