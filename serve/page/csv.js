// CSV (RFC 4180), as far as the page needs it.

/**
 * The texts of a list. If the first line is the head of a CSV file with a column `text`, those of that column (and of
 * `text_pair`); otherwise one text a line, the two of a pair separated by a tab.
 */
export function textsOf(content, pairs) {
  content = content.replace(/^\uFEFF/, "");
  const head = content.slice(0, content.search(/[\r\n]|$/));
  const mark = [",", ";", "\t"].find((one) => names(head, one).includes("text"));
  const isTable = mark !== undefined && (!pairs || names(head, mark).includes("text_pair"));
  if (!isTable) {
    const lines = content.split(/\r\n|\r|\n/).filter((line) => line.trim());
    return pairs ? lines.map((line) => [line.split("\t")[0], line.split("\t").slice(1).join("\t")]) : lines;
  }
  const places = ["text", "text_pair"].map((name) => names(head, mark).indexOf(name));
  return cells(content, mark)
    .slice(1)
    .filter((row) => row.some((cell) => cell.trim()))
    .map((row) => (pairs ? places.map((place) => row[place] ?? "") : (row[places[0]] ?? "")));
}

const names = (head, mark) => (cells(head, mark)[0] ?? []).map((name) => name.trim().toLowerCase());

function cells(content, mark) {
  const rows = [];
  let [row, cell, quoted] = [[], "", false];
  const endRow = () => {
    rows.push([...row, cell]);
    [row, cell] = [[], ""];
  };
  for (let place = 0; place < content.length; place++) {
    const sign = content[place];
    if (quoted) {
      if (sign !== '"') cell += sign;
      else if (content[place + 1] === '"') cell += content[++place];
      else quoted = false;
    } else if (sign === '"' && !cell) quoted = true;
    else if (sign === mark) {
      row.push(cell);
      cell = "";
    } else if (sign === "\n" || sign === "\r") {
      if (sign === "\r" && content[place + 1] === "\n") place++;
      endRow();
    } else cell += sign;
  }
  if (cell || row.length) endRow();
  return rows;
}

/** Rows as CSV. A text that a spreadsheet would run as a formula gets an apostrophe in front. */
export function csvOf(rows) {
  const cell = (value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
}
