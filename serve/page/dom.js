// Elements. Texts of users become text nodes, never markup.

export const byId = (id) => document.getElementById(id);

/** An element; properties are those of the DOM, names with a dash are attributes; children are nodes or texts. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function button(text, onClick, properties = {}) {
  const made = make("button", { type: "button", ...properties }, text);
  made.addEventListener("click", onClick);
  return made;
}

/** A table; a cell is a node or a text, or [node or text, class]. */
export function table(caption, heads, rows) {
  const parts = (cell) => (Array.isArray(cell) ? cell : [cell, ""]);
  const cells = (row) =>
    row.map((cell, place) => {
      const [content, className] = parts(cell);
      const shown = typeof content === "string" ? breakable(content) : [content];
      return make("td", { className, "data-head": heads[place] }, ...shown); // a narrow window has no line of heads
    });
  const headClass = (place) => (rows.length && parts(rows[0][place])[1] === "n" ? "n" : "");
  return make(
    "div",
    { className: "wide", tabIndex: 0, role: "region", "aria-label": caption },
    make(
      "table",
      {},
      make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...heads.map((head, place) => make("th", { scope: "col", className: headClass(place) }, head)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row)))),
    ),
  );
}

/** A text that may be broken after the marks that join the words of a label. */
export const breakable = (text) => text.split(/(?<=[_/-])(?=\w)/).flatMap((part, place) => (place ? [make("wbr"), part] : [part]));

export function bar(share, name) {
  return make("meter", { min: 0, max: 1, value: share, "aria-label": `${name}: ${percent(share)}` });
}

export function percent(share) {
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

/** A text or a pair of texts for reading. */
export function shownText(text) {
  if (text === null || text === undefined) return "(the text is not kept)";
  return Array.isArray(text) ? text.join("\n") : text;
}

/** Show a message, which screen readers read out, with buttons. */
export function tell(message, { bad = false, buttons = [] } = {}) {
  byId("status").replaceChildren(make("span", { className: bad ? "bad" : "" }, message), ...buttons);
}

/** An event's handler that shows the error of an asynchronous function. */
export function reported(work) {
  return async (event) => {
    try {
      await work(event);
    } catch (error) {
      tell(error.message, { bad: true });
    }
  };
}

/** Run an asynchronous function at an event; a form is not sent by the browser. */
export function at(element, name, work) {
  element.addEventListener(name, (event) => {
    if (name === "submit" && element.method !== "dialog") event.preventDefault();
    return reported(work)(event);
  });
}
