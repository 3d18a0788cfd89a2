// Classify texts with a fused model from JavaScript, without reaugkd.
//
//   node classify.mjs model.onnx BUNDLE/student "a text" ["another"]
//   node classify.mjs --web model.onnx BUNDLE/student < texts.jsonl    // one JSON value a line: "text" or ["a", "b"]
//
// With --web it uses the WebAssembly build of ONNX Runtime, as a browser does. In a browser, replace readFile() by fetch().

import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { Tokenizer } from "@huggingface/tokenizers";

/** Token ids and types of a text or pair, truncated to maxLength like the Rust tokenizers: the longer text of a pair first. */
export function encode(tokenizer, text, pair, maxLength) {
  const whole = tokenizer.encode(text, { text_pair: pair, return_token_type_ids: true });
  const ids = whole.ids;
  const bare = (part) => (part == null ? [] : tokenizer.encode(part, { add_special_tokens: false }).ids);
  const [first, second] = [bare(text), bare(pair)];
  const room = maxLength - (ids.length - first.length - second.length);
  const [keptFirst, keptSecond] = lengths(first.length, second.length, room);
  const starts = place(ids, first, second);
  const kept = ids.map(
    (_, at) => !(cut(at, starts[0], first.length, keptFirst) || cut(at, starts[1], second.length, keptSecond)),
  );
  return { ids: ids.filter((_, at) => kept[at]), types: whole.token_type_ids.filter((_, at) => kept[at]) };
}

/** Whether the token at a position is truncated from the text that starts at `start`. */
function cut(at, start, length, kept) {
  return at >= start + kept && at < start + length;
}

/** The number of tokens to keep of each text. */
function lengths(first, second, room) {
  if (first + second <= room) return [first, second];
  if (second === 0) return [room, 0];
  const short = Math.min(first, second);
  let kept = short > room ? [short, short] : [short, Math.max(short, room - short)];
  if (kept[0] + kept[1] > room) kept = [Math.floor(room / 2), Math.floor(room / 2) + (room % 2)];
  return first <= second ? kept : kept.reverse();
}

/** The positions at which the two texts start between the special tokens. */
function place(ids, first, second) {
  const found = (part, from) => {
    for (let at = from; at + part.length <= ids.length; at++) {
      if (part.every((id, offset) => ids[at + offset] === id)) return at;
    }
    throw new Error("the tokens of a text are not part of the tokens of the pair");
  };
  const start = found(first, 0);
  return [start, found(second, start + first.length)];
}

/** Load a fused model and its tokenizer; resolves to a function that returns every output for a text or a pair. */
export async function load(ort, modelPath, studentFolder) {
  const json = async (name) => JSON.parse(await readFile(`${studentFolder}/${name}`, "utf8"));
  const config = await json("tokenizer_config.json");
  const tokenizer = new Tokenizer(await json("tokenizer.json"), config);
  const session = await ort.InferenceSession.create(await readFile(modelPath));
  return async (text, pair = null) => {
    const { ids, types } = encode(tokenizer, text, pair, config.model_max_length);
    const tensor = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
    const all = { input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)), token_type_ids: tensor(types) };
    // One text at a time and no padding: the outputs of an int8 model depend on the other texts of a batch.
    const feeds = Object.fromEntries(session.inputNames.map((name) => [name, all[name]]));
    const found = await session.run(feeds);
    return Object.fromEntries(Object.entries(found).map(([name, value]) => [name, Array.from(value.data)]));
  };
}

async function main(args) {
  const web = args[0] === "--web";
  const [model, student, ...texts] = web ? args.slice(1) : args;
  const ort = await import(web ? "onnxruntime-web" : "onnxruntime-node");
  if (web) ort.env.wasm.numThreads = 1;
  const classify = await load(ort, model, student);
  const lines = texts.length ? texts : createInterface({ input: process.stdin });
  for await (const line of lines) {
    const text = texts.length ? line : JSON.parse(line);
    const answer = Array.isArray(text) ? await classify(...text) : await classify(text);
    const plain = { ...answer, label: answer.label[0], student_weight: answer.student_weight[0] };
    console.log(JSON.stringify(plain, (_, value) => (typeof value === "bigint" ? Number(value) : value)));
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await main(process.argv.slice(2));
