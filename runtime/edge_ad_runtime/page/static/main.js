// Listen to the device, and hand each message to what shows it.

import { Camera } from "./camera.js";
import { plural } from "./format.js";
import { clearEvents, showEvent, showGallery } from "./lists.js";

const SILENCE_MS = 4000;
const cameras = new Map();
let source = null;
let heardAt = performance.now();

function listen() {
  source = new EventSource("events");
  source.addEventListener("open", () => {
    // The device sends all it remembers to everyone who comes.
    clearEvents();
    for (const camera of cameras.values()) camera.parts = [];
  });
  source.addEventListener("message", (message) => showEvent(JSON.parse(message.data)));
  source.addEventListener("status", (message) => update(JSON.parse(message.data)));
  source.addEventListener("verdict", (message) => {
    const part = JSON.parse(message.data);
    find(part.camera).show(part);
  });
  source.addEventListener("dismissed", () => {
    source.close();
    source = null;
    alarm("This page is open in too many places, and another one took its place. Reload to go on.");
  });
}

function find(name) {
  if (!cameras.has(name)) {
    const camera = new Camera(name);
    cameras.set(name, camera);
    document.getElementById("cameras").append(camera.card);
    document.body.dataset.cameras = cameras.size <= 2 ? cameras.size : "many";
  }
  return cameras.get(name);
}

function update(status) {
  heardAt = performance.now();
  alarm("");
  for (const camera of status.cameras) find(camera.name).update(camera);
  if (status.gallery) showGallery(status.gallery);
  const lost = status.cameras.filter((camera) => camera.lost).length;
  const all = plural(status.cameras.length, "camera delivers", "cameras deliver");
  health(lost ? `${plural(lost, "camera", "cameras")} lost` : all, lost ? "bad" : "good");
}

function health(text, kind) {
  const element = document.getElementById("health");
  if (element.textContent !== text) element.textContent = text;
  element.className = kind;
}

/** Say over everything that what is shown is old; without a text, that it is not. */
function alarm(text) {
  const banner = document.getElementById("banner");
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = !text;
  document.body.classList.toggle("stale", text !== "");
}

function look() {
  const silent = performance.now() - heardAt > SILENCE_MS;
  if (source !== null && silent && !document.hidden) {
    alarm("No connection to the device: what you see is old.");
    health("No connection", "bad");
  }
}

// Nobody looks at a hidden page, so the device need not draw for it.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    source = null;
  } else if (source === null) {
    heardAt = performance.now();
    listen();
  }
});

document.getElementById("heat").addEventListener("input", (event) => {
  document.documentElement.style.setProperty("--heat", event.target.value);
});

new ResizeObserver(() => {
  for (const camera of cameras.values()) camera.redraw();
}).observe(document.getElementById("cameras"));

setInterval(look, 1000);
listen();
