// Events, and the last anomalous parts.

import { score, time } from "./format.js";
import { openPart } from "./part.js";

const MOST_EVENTS = 100;
const STILL_MS = 2000;
const events = document.getElementById("events");
const gallery = document.getElementById("gallery");
let isOver = false;
let touchedAt = -Infinity;
let newest = [];
let timer = 0;

export function clearEvents() {
  events.replaceChildren();
}

export function showEvent(event) {
  const item = document.createElement("li");
  const moment = document.createElement("time");
  const kind = document.createElement("strong");
  item.dataset.kind = event.event;
  moment.dateTime = event.timestamp;
  moment.textContent = time(event.timestamp);
  kind.textContent = event.event;
  const text = document.createElement("span");
  text.textContent = event.message;
  item.append(moment, kind, text);
  events.prepend(item);
  while (events.children.length > MOST_EVENTS) events.lastChild.remove();
  document.getElementById("no-events").hidden = true;
}

export function showGallery(parts) {
  newest = parts;
  // Under a pointer it holds still: nobody hits a picture that moves.
  if (isOver || performance.now() - touchedAt < STILL_MS) {
    clearTimeout(timer);
    timer = setTimeout(() => showGallery(newest), STILL_MS);
    return;
  }
  document.getElementById("no-gallery").hidden = parts.length > 0;
  const shown = new Map([...gallery.children].map((button) => [button.dataset.id, button]));
  gallery.replaceChildren(...parts.map((part) => shown.get(part.id) ?? framed(part)));
}

function framed(part) {
  const button = document.createElement("button");
  const image = document.createElement("img");
  const text = document.createElement("span");
  button.type = "button";
  button.dataset.id = part.id;
  image.src = `part/${part.id}/small.jpg`;
  image.alt = "";
  text.textContent = `${part.camera} ${score(part.score)}, ${time(part.timestamp)}`;
  button.append(image, text);
  button.addEventListener("click", () => openPart(part, () => [...newest].reverse()));
  return button;
}

gallery.addEventListener("pointerenter", (event) => {
  isOver = event.pointerType === "mouse";
});
gallery.addEventListener("pointerleave", () => {
  isOver = false;
});
gallery.addEventListener("pointerdown", () => {
  touchedAt = performance.now();
});
