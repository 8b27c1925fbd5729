// Score a raw frame with a model file in onnxruntime-node; no code of edge-ad takes part.
//
//   npm install onnxruntime-node && node benchmarks/node_score.mjs MODEL FRAME.raw
//
// FRAME.raw: uint8, h x w x 3, BGR at the model's input size (in Python: frame.tofile(...)).
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";

const [model, raw] = process.argv.slice(2);
const session = await ort.InferenceSession.create(await readFile(model));
const [, height, width, channels] = session.inputMetadata[0].shape;
const data = new Uint8Array(await readFile(raw));
const frame = new ort.Tensor("uint8", data, [1, height, width, channels]);
const { score, anomaly_map } = await session.run({ frame });
const highest = anomaly_map.data.reduce((a, b) => Math.max(a, b), -Infinity);
console.log(JSON.stringify({ score: score.data[0], map_maximum: highest, map: anomaly_map.dims }));
