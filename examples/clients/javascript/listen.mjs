// Hear the words of an exported model in a WAV file, without kouling.
//
//     kouling export en-commands --target onnx -o BUNDLE
//     npm install
//     node listen.mjs BUNDLE FILE.wav                    16 kHz, mono, 16 bits

import { readFileSync } from "node:fs";
import { join } from "node:path";
import ort from "onnxruntime-node";
import { LogMel } from "./log_mel.mjs";
import { Words } from "./words.mjs";

if (process.argv.length !== 4) fail("usage: node listen.mjs BUNDLE FILE.wav");
const [bundle, wav] = process.argv.slice(2);
const told = JSON.parse(readFileSync(join(bundle, "model.json"), "utf8"));
const { features, encoder } = told.info.config;
const [logMel, words, waiting] = [new LogMel(features), new Words(told.info), []];

// What the model gives as NAME.next it takes as NAME in the next call; state.bin has the first ones.
const session = await ort.InferenceSession.create(join(bundle, told.file), { intraOpNumThreads: 1 }); // a step is small
const first = new Float32Array(new Uint8Array(readFileSync(join(bundle, told.initial))).buffer);
const state = {};
let at = 0;
for (const { name, shape } of told.inputs.slice(1)) {
  const count = shape.reduce((a, b) => a * b);
  state[name] = new ort.Tensor("float32", first.slice(at, (at += count)), shape);
}

const samples = read(wav);
for (let start = 0; start < samples.length; start += 1600) // as from a microphone
  for (const frame of logMel.accept(samples.subarray(start, start + 1600))) await step(frame);
const silence = encoder.streaming_chunk_size - encoder.streaming_step_size + 80 + told.frames;
for (let i = 0; i < silence; i++) await step(new Array(features.num_mels).fill(0)); // brings out what was said last
show(words.decided());

async function step(frame) {
  waiting.push(...frame); // a step has several
  if (waiting.length < told.frames * features.num_mels) return;
  const input = new ort.Tensor("float32", Float32Array.from(waiting.splice(0)), told.inputs[0].shape);
  const found = await session.run({ features: input, ...state });
  for (const name of Object.keys(state)) state[name] = found[`${name}.next`];
  const [, frames, units] = found.logits.dims;
  for (let n = 0; n < frames; n++) {
    const logits = found.logits.data.subarray(n * units, (n + 1) * units);
    const sum = Math.log(logits.reduce((total, each) => total + Math.exp(each), 0));
    show(words.accept(logits.map((each) => each - sum)));
  }
}

function show(heard) {
  for (const { startS, endS, confidence, name } of heard) {
    const [start, end] = [startS, endS].map((each) => each.toFixed(3).padStart(8));
    console.log(`${start} ${end}  ${(100 * confidence).toFixed(0).padStart(3)}%  ${name}`);
  }
}

function read(path) {
  const file = readFileSync(path);
  let told = "";
  for (let at = 12, size; at + 8 <= file.length; at += 8 + size + (size % 2)) {
    const kind = file.toString("latin1", at, at + 4);
    size = file.readUInt32LE(at + 4);
    if (kind === "fmt ")
      told = [file.readUInt32LE(at + 12), file.readUInt16LE(at + 10), file.readUInt16LE(at + 22)].join();
    if (kind === "data" && told === "16000,1,16")
      return new Int16Array(new Uint8Array(file.subarray(at + 8, at + 8 + size)).buffer);
  }
  return fail(`${path}: not a WAV file of 16 kHz, mono, 16 bits`);
}

function fail(text) {
  console.error(text);
  process.exit(2);
}
