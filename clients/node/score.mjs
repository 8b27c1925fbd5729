#!/usr/bin/env node
// Scores pictures with a model file in Node.js: one line of JSON for each picture.
//
//   node score.mjs MODEL PICTURE...

import { realpathSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";
import { ModelFileError, prepare, readModel } from "./edge_ad.mjs";

/** Reads a model file and starts a session with exactly the bytes that were checked. */
export async function openModel(path) {
  const file = await readFile(path);
  const model = await readModel(file);
  return { model, session: await InferenceSession.create(file) };
}

/** Scores a frame: `score`, `anomalous`, and `map`, its anomaly map as {data, dims: [1, h, w]}. */
export async function score({ model, session }, frame) {
  const { data, dims } = prepare(frame, model);
  const outputs = await session.run({ frame: new Tensor("uint8", data, dims) });
  const [value] = outputs.score.data;
  if (!Number.isFinite(value)) throw new ModelFileError(`expected a finite score, the model gave ${value}`);
  return { score: value, anomalous: value >= model.threshold, map: outputs.anomaly_map };
}

/** Reads a picture as the device does: grey becomes RGB, 16 bits become 8, EXIF turns it. */
export async function readFrame(path) {
  const picture = sharp(path, { ignoreIcc: true, limitInputPixels: 178e6 });
  const deep = (await picture.metadata()).depth === "ushort";
  const { data, info } = await picture
    .autoOrient()
    .removeAlpha()
    .toColourspace(deep ? "rgb16" : "srgb")
    .raw({ depth: deep ? "ushort" : "uchar" })
    .toBuffer({ resolveWithObject: true });
  const values = deep
    ? Uint8Array.from(new Uint16Array(data.buffer, data.byteOffset, data.length / 2), (value) => Math.round(value / 257))
    : data;
  return { data: values, width: info.width, height: info.height, channels: info.channels };
}

async function main([modelPath, ...pictures]) {
  if (!pictures.length) {
    console.error("usage: node score.mjs MODEL PICTURE...");
    return 2;
  }
  let opened;
  try {
    opened = await openModel(modelPath);
  } catch (error) {
    console.error(`cannot use the model file ${modelPath}: ${error.message}`);
    return 1;
  }
  let code = 0;
  for (const path of pictures) {
    try {
      const frame = await readFrame(path);
      const started = performance.now();
      const { score: value, anomalous, map } = await score(opened, frame);
      const latency = performance.now() - started;
      const highest = map.data.reduce((at, mapped, index) => (mapped > map.data[at] ? index : at), 0);
      const width = map.dims[2];
      console.log(
        JSON.stringify({
          path,
          score: value,
          threshold: opened.model.threshold,
          anomalous,
          map_maximum: map.data[highest],
          map_maximum_at: [Math.floor(highest / width), highest % width],
          latency_ms: Math.round(latency * 1000) / 1000,
        }),
      );
    } catch (error) {
      console.error(`cannot score the picture ${path}: ${error.message}`);
      code = 1;
    }
  }
  return code;
}

// npm calls it by a link.
if (import.meta.filename === realpathSync(process.argv[1] ?? ".")) process.exitCode = await main(process.argv.slice(2));
