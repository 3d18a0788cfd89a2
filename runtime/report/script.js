"use strict";
// The page is complete without this script: it adds sorting, a filter, and a button that opens all details.

function value(row, column, numeric) {
  const text = row.cells[column].textContent.trim();
  if (!numeric) return text.toLowerCase();
  const number = parseFloat(text.replace(/[,+%\s]/g, ""));
  return Number.isNaN(number) ? -Infinity : number;
}

function sort(table, header, column) {
  const numeric = header.classList.contains("n");
  const before = header.getAttribute("aria-sort");
  const up = before ? before === "descending" : !numeric; // numbers begin with the largest
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = Array.from(table.tBodies[0].rows, (row) => [value(row, column, numeric), row]);
  rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(table, header, column));
    header.append(button);
  });
}

for (const section of document.querySelectorAll("section.filtered")) {
  const tools = section.querySelector(".tools");
  const rows = section.querySelectorAll("tbody tr");
  const details = section.querySelectorAll("td details");
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "Filter the rows";
  input.setAttribute("aria-label", "Filter the rows");
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  tools.append(input);
  if (details.length) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Open or close all";
    button.addEventListener("click", () => {
      const open = !details[0].open;
      for (const one of details) one.open = open;
    });
    tools.append(button);
  }
}
