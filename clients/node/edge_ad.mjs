// Reads edge-ad model files and prepares frames for them: for Node.js and for browsers.
//
// docs/model-file.md is the contract. Nothing here depends on ONNX Runtime, which scores the frame.

const NEWEST_FORMAT = 1;
const ZEROS = new TextEncoder().encode("0".repeat(64));

/** What is wrong with a model file or a frame, as a sentence for people. */
export class ModelFileError extends Error {}

/**
 * Reads what a model file says about itself.
 *
 * @param {Uint8Array} file the whole model file
 * @returns {Promise<object>} the JSON of `edge_ad.model`, checked, and `verified`: whether the
 *   checksum was compared (false: the file has none, or this browser gives no SHA-256 to pages that
 *   come over plain HTTP from another machine)
 */
export async function readModel(file) {
  const metadata = readMetadata(file);
  const format = metadata.get("edge_ad.format_version");
  if (format === undefined || !metadata.has("edge_ad.model")) {
    throw new ModelFileError("expected a model file written by `edge-ad export`: it has no metadata of edge-ad");
  }
  if (!/^[0-9]{1,9}$/.test(format) || Number(format) > NEWEST_FORMAT) {
    throw new ModelFileError(`the model file has format version ${format}, this program reads up to ${NEWEST_FORMAT}`);
  }
  const model = parse(metadata.get("edge_ad.model"));
  const [height, width] = Array.isArray(model.input_size) ? model.input_size : [];
  const sides = [height, width, model.resize ?? Math.max(height, width)];
  if (!sides.every((side) => Number.isInteger(side) && side >= 32 && side <= 16384)) {
    throw new ModelFileError("the model file is damaged: its input size cannot be");
  }
  for (const name of ["threshold", "map_threshold"]) {
    if (!Number.isFinite(model[name])) throw new ModelFileError(`the model file is damaged: no number '${name}'`);
  }
  if ((model.color_order ?? "BGR") !== "BGR") {
    throw new ModelFileError(`expected the colour order BGR, the model file says ${model.color_order}`);
  }
  const verified = await verify(file, metadata.get("edge_ad.sha256"), model.checksum);
  return { ...model, resize: model.resize ?? null, verified };
}

function parse(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    throw new ModelFileError("the model file is damaged: its metadata are not JSON");
  }
}

/** The metadata of an ONNX file: entries of field 14 of the protocol buffer, each a key and a value. */
function readMetadata(file) {
  const text = new TextDecoder();
  const metadata = new Map();
  for (const [field, entry] of fields(file)) {
    if (field !== 14) continue;
    const pair = new Map(fields(entry));
    if (pair.has(1)) metadata.set(text.decode(pair.get(1)), text.decode(pair.get(2) ?? new Uint8Array()));
  }
  return metadata;
}

/** Yields number and content of those fields of a protocol buffer message that are byte strings. */
function* fields(message) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let weight = 1; ; weight *= 128) {
      if (at >= message.length) throw new ModelFileError("the file is not an ONNX file, or it is cut off");
      const byte = message[at++];
      value += (byte & 127) * weight;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      if (at + length > message.length) throw new ModelFileError("the file is not an ONNX file, or it is cut off");
      yield [Math.floor(tag / 8), message.subarray(at, at + length)];
      at += length;
    } else throw new ModelFileError("the file is not an ONNX file, or it is damaged");
  }
}

async function verify(file, checksum, promised) {
  if (checksum === undefined) {
    if (promised) throw new ModelFileError("the model file is damaged: its checksum is missing");
    return false;
  }
  if (!globalThis.crypto?.subtle) return false;
  const place = lastIndex(file, new TextEncoder().encode("edge_ad.sha256\x12\x40")) + 16;
  const blank = file.slice();
  blank.set(ZEROS, place);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", blank));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== checksum) throw new ModelFileError("the model file is damaged: its checksum does not fit, copy it again");
  return true;
}

function lastIndex(bytes, wanted) {
  for (let at = bytes.length - wanted.length; at >= 0; at--) {
    if (wanted.every((byte, offset) => bytes[at + offset] === byte)) return at;
  }
  throw new ModelFileError("the model file is damaged: its checksum is not where it has to be");
}

/**
 * Makes the model's input of a frame.
 *
 * @param {{data: ArrayLike<number>, width: number, height: number, channels: 3 | 4}} frame 8 bits a
 *   channel, row by row, RGB or RGBA; alpha is ignored
 * @param {object} model what `readModel` returned
 * @returns {{data: Uint8Array, dims: number[]}} the tensor `frame`: 1 x h x w x 3, BGR
 */
export function prepare(frame, model) {
  let picture = toBgr(frame);
  if (!model.resize_in_graph) {
    const [height, width] = model.input_size;
    const [fullHeight, fullWidth] = fullSize(frame, model);
    picture = resize(picture, fullHeight, fullWidth);
    const top = Math.floor((fullHeight - height) / 2);
    const left = Math.floor((fullWidth - width) / 2);
    picture = crop(picture, top, left, height, width);
  }
  return { data: picture.data, dims: [1, picture.height, picture.width, 3] };
}

/** Where the anomaly map lies on a frame, in pixels of the frame. */
export function mapPlace(frame, model) {
  const [height, width] = model.input_size;
  const [fullHeight, fullWidth] = fullSize(frame, model);
  const [down, across] = [frame.height / fullHeight, frame.width / fullWidth];
  return {
    x: Math.floor((fullWidth - width) / 2) * across,
    y: Math.floor((fullHeight - height) / 2) * down,
    width: width * across,
    height: height * down,
  };
}

/** Height and width of the whole frame before the centre is cut out. */
function fullSize(frame, model) {
  const [height, width] = model.input_size;
  if (model.resize === null) return [height, width];
  const scale = model.resize / Math.min(frame.height, frame.width);
  return [Math.max(roundToEven(frame.height * scale), height), Math.max(roundToEven(frame.width * scale), width)];
}

function toBgr({ data, width, height, channels }) {
  const bgr = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < bgr.length; from += channels, to += 3) {
    bgr[to] = data[from + 2];
    bgr[to + 1] = data[from + 1];
    bgr[to + 2] = data[from];
  }
  return { data: bgr, width, height };
}

function crop(picture, top, left, height, width) {
  if (height === picture.height && width === picture.width) return picture;
  const data = new Uint8Array(height * width * 3);
  for (let row = 0; row < height; row++) {
    const start = ((top + row) * picture.width + left) * 3;
    data.set(picture.data.subarray(start, start + width * 3), row * width * 3);
  }
  return { data, width, height };
}

/** The resize of docs/model-file.md, equal in every bit to the one of the device. */
export function resize(picture, height, width) {
  if (picture.height === height && picture.width === width) return picture;
  const shrinks = picture.height >= height && picture.width >= width;
  const make = !shrinks ? interpolate : picture.height % height || picture.width % width ? average : averageWhole;
  return { data: make(picture, height, width), width, height };
}

/** Areas that are not whole pixels: sums in float32, first along the rows, then down the columns. */
function average({ data, width: sourceWidth, height: sourceHeight }, height, width) {
  const { fround } = Math;
  const columns = overlaps(sourceWidth, width);
  const out = new Uint8Array(height * width * 3);
  const row = new Float32Array(width * 3);
  const sum = new Float32Array(width * 3);
  overlaps(sourceHeight, height).forEach((parts, y) => {
    sum.fill(0);
    for (const [sourceY, weightY] of parts) {
      row.fill(0);
      columns.forEach((pixels, x) => {
        for (const [sourceX, weightX] of pixels) {
          const from = (sourceY * sourceWidth + sourceX) * 3;
          for (let c = 0; c < 3; c++) row[x * 3 + c] += fround(data[from + c] * weightX);
        }
      });
      for (let at = 0; at < sum.length; at++) sum[at] += fround(row[at] * weightY);
    }
    for (let at = 0; at < sum.length; at++) out[y * width * 3 + at] = Math.min(255, roundToEven(sum[at]));
  });
  return out;
}

/** For each of `size` areas along `length` pixels: which pixels it covers, and their weights. */
function overlaps(length, size) {
  const scale = length / size;
  return Array.from({ length: size }, (_, index) => {
    const start = index * scale;
    const end = start + scale;
    const cell = Math.min(scale, length - start);
    const last = Math.min(Math.floor(end), length - 1);
    const first = Math.min(Math.ceil(start), last);
    const parts = [];
    if (first - start > 1e-3) parts.push([first - 1, Math.fround((first - start) / cell)]);
    for (let pixel = first; pixel < last; pixel++) parts.push([pixel, Math.fround(1 / cell)]);
    if (end - last > 1e-3) parts.push([last, Math.fround(Math.min(end - last, 1, cell) / cell)]);
    return parts;
  });
}

/** Areas of whole pixels: sums of integers. */
function averageWhole({ data, width: sourceWidth, height: sourceHeight }, height, width) {
  const [down, across] = [sourceHeight / height, sourceWidth / width];
  const share = Math.fround(1 / (down * across));
  const halvesUp = down === 2 && across === 2;
  const out = new Uint8Array(height * width * 3);
  for (let at = 0; at < out.length; at++) {
    const c = at % 3;
    const x = Math.floor(at / 3) % width;
    const y = Math.floor(at / 3 / width);
    let sum = 0;
    for (let dy = 0; dy < down; dy++) {
      const from = ((y * down + dy) * sourceWidth + x * across) * 3 + c;
      for (let dx = 0; dx < across; dx++) sum += data[from + dx * 3];
    }
    out[at] = halvesUp ? (sum + 2) >> 2 : roundToEven(Math.fround(sum * share));
  }
  return out;
}

/** Between pixels, in fixed point: weights of 11 bits. */
function interpolate({ data, width: sourceWidth, height: sourceHeight }, height, width) {
  const columns = neighbours(sourceWidth, width, true);
  const out = new Uint8Array(height * width * 3);
  neighbours(sourceHeight, height, false).forEach(([above, below, weightAbove, weightBelow], y) => {
    columns.forEach(([left, right, weightLeft, weightRight], x) => {
      for (let c = 0; c < 3; c++) {
        const along = (row) =>
          data[(row * sourceWidth + left) * 3 + c] * weightLeft + data[(row * sourceWidth + right) * 3 + c] * weightRight;
        const sum = ((weightAbove * (along(above) >> 4)) >> 16) + ((weightBelow * (along(below) >> 4)) >> 16);
        out[(y * width + x) * 3 + c] = (sum + 2) >> 2;
      }
    });
  });
  return out;
}

/** For each of `size` points along `length` pixels: the pixels on both sides, and their weights. */
function neighbours(length, size, stopsAtBorder) {
  const scale = length / size;
  const inside = (pixel) => Math.min(Math.max(pixel, 0), length - 1);
  return Array.from({ length: size }, (_, index) => {
    const place = Math.fround((index + 0.5) * scale - 0.5);
    const pixel = Math.floor(place);
    let share = Math.fround(place - pixel);
    if (stopsAtBorder && (pixel < 0 || pixel >= length - 1)) share = 0;
    return [inside(pixel), inside(pixel + 1), roundToEven(Math.fround(1 - share) * 2048), roundToEven(share * 2048)];
  });
}

function roundToEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}
