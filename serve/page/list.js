// A list of texts that is pasted, dropped, or read from a file.

import { server } from "./api.js";
import { textsOf } from "./csv.js";
import { at, byId, tell } from "./dom.js";

/** Let a form take a file: `area` and `upload` are the ids of its field of texts and of its field of files. */
export function setUpList(form, area, upload) {
  const take = async (file) => {
    if (!file) return;
    byId(area).value = await file.text(); // where the user can see the texts
    tell(`${file.name}: ${textsIn(area).length} texts`);
  };
  at(byId(upload), "change", () => take(byId(upload).files[0]));
  at(form, "dragover", (event) => {
    event.preventDefault();
    form.classList.add("dropping");
  });
  at(form, "dragleave", () => form.classList.remove("dropping"));
  at(form, "drop", (event) => {
    event.preventDefault();
    form.classList.remove("dropping");
    return take(event.dataTransfer.files[0]);
  });
}

export const textsIn = (area) => textsOf(byId(area).value, server.info.reaugkd.text_pair);

/** A text or pair as requests have it. */
export const inputOf = (text) => (Array.isArray(text) ? { text: text[0], text_pair: text[1] } : text);

/** As many of the first texts as one request may have bytes. */
export function portion(texts) {
  let bytes = 0;
  const fits = texts.findIndex((text) => {
    bytes += 2 * new Blob([JSON.stringify(text)]).size + 40; // twice: the server's limit is not to be met exactly
    return bytes > server.info.reaugkd.max_body;
  });
  return fits === -1 ? texts : texts.slice(0, Math.max(fits, 1));
}
