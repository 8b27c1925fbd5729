// Puts index.html, the module that it shares with the Node.js client and ONNX Runtime's WebAssembly
// into one file, dist/edge-ad.html, which runs from disk: no server, no network.
//
//   npm ci && npm run build

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const here = (path) => new URL(path, import.meta.url);
const script = async (path) => `data:text/javascript;base64,${(await readFile(here(path))).toString("base64")}`;
const runtime = "node_modules/onnxruntime-web/dist/";

const imports = {
  "edge-ad": await script("../node/edge_ad.mjs"),
  "onnxruntime-web": await script(`${runtime}ort.wasm.bundle.min.mjs`),
};
const wasm = gzipSync(await readFile(here(`${runtime}ort-wasm-simd-threaded.wasm`)), { level: 9 });

let page = await readFile(here("index.html"), "utf8");
for (const [place, content] of [
  ['{"imports": {}}', JSON.stringify({ imports })],
  ['id="wasm"></script>', `id="wasm">${wasm.toString("base64")}</script>`],
]) {
  if (!page.includes(place)) throw new Error(`index.html lacks ${place}`);
  page = page.replace(place, () => content);
}
await mkdir(here("dist"), { recursive: true });
await writeFile(here("dist/edge-ad.html"), page);
console.log(`dist/edge-ad.html: ${(page.length / 1e6).toFixed(1)} MB`);
