"use strict";

const cards = new Map();
let contrast = 1;
let galleryTouchedAt = -Infinity;

const short = (value) => (value === null ? "-" : Number(value).toPrecision(4));

function source(index) {
  return `camera/${index}?contrast=${contrast.toFixed(2)}`;
}

function addCard(camera) {
  const card = document.getElementById("camera").content.firstElementChild.cloneNode(true);
  card.querySelector(".name").textContent = camera.name;
  card.querySelector(".live").alt = `live picture of ${camera.name}`;
  card.querySelector(".live").src = source(camera.index);
  const slider = card.querySelector(".limit input");
  slider.ariaLabel = `limit of ${camera.name}`;
  slider.min = Math.min(camera.score_range[0], 0.5 * camera.threshold);
  slider.max = Math.max(camera.score_range[1], 2 * camera.threshold);
  slider.value = camera.threshold;
  slider.addEventListener("change", async () => {
    await fetch("threshold", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ camera: camera.name, threshold: Number(slider.value) }),
    });
  });
  document.getElementById("cameras").append(card);
  cards.set(camera.name, card);
  return card;
}

function verdict(camera) {
  if (camera.lost) return "CAMERA LOST";
  if (camera.score === null) return "waiting";
  return `${camera.is_anomalous ? "ANOMALOUS" : "GOOD"} ${short(camera.score)}`;
}

function draw(canvas, camera) {
  const pen = canvas.getContext("2d");
  const { width, height } = canvas;
  const style = getComputedStyle(document.documentElement);
  const values = camera.scores;
  const low = Math.min(...values, camera.score_range[0], camera.threshold);
  const high = Math.max(...values, camera.threshold) + 1e-9;
  const y = (value) => height - 8 - ((value - low) / (high - low)) * (height - 16);
  const step = width / 300;
  pen.clearRect(0, 0, width, height);
  for (const [index, value] of values.entries()) {
    const bad = value >= camera.threshold;
    pen.fillStyle = style.getPropertyValue(bad ? "--bad" : "--good");
    pen.fillRect(index * step, y(value), Math.max(2, step - 0.5), height - y(value));
  }
  pen.strokeStyle = style.getPropertyValue("--limit");
  pen.lineWidth = 2;
  pen.beginPath();
  pen.moveTo(0, y(camera.threshold));
  pen.lineTo(width, y(camera.threshold));
  pen.stroke();
}

function show(camera) {
  const card = cards.get(camera.name) ?? addCard(camera);
  const known = camera.score !== null;
  card.classList.toggle("lost", camera.lost);
  card.classList.toggle("alarm", camera.alarm);
  card.classList.toggle("bad", camera.lost || (known && camera.is_anomalous));
  card.classList.toggle("good", !camera.lost && known && !camera.is_anomalous);
  card.querySelector(".verdict").textContent = verdict(camera);
  card.querySelector(".frames").textContent = camera.frames.toLocaleString("en");
  card.querySelector(".anomalous").textContent = camera.anomalous.toLocaleString("en");
  card.querySelector(".failed").textContent = camera.failed.toLocaleString("en");
  card.querySelector(".latency").textContent = known ? `${camera.latency_ms} ms` : "-";
  card.querySelector(".model").textContent = camera.model;
  card.querySelector(".limit output").textContent = short(camera.threshold);
  draw(card.querySelector(".plot"), camera);
}

function showGallery(entries) {
  // Under a pointer it holds still: nobody hits a picture that moves.
  if (performance.now() - galleryTouchedAt < 2000) return;
  const gallery = document.getElementById("gallery");
  const shown = new Map([...gallery.children].map((button) => [button.dataset.id, button]));
  if (entries.map((entry) => entry.id).join() === [...shown.keys()].join()) return;
  gallery.replaceChildren(...entries.map((entry) => shown.get(`${entry.id}`) ?? framed(entry)));
}

function framed(entry) {
  const button = document.createElement("button");
  const image = document.createElement("img");
  const text = document.createElement("span");
  button.dataset.id = entry.id;
  image.src = `gallery/${entry.id}`;
  image.alt = `anomaly at ${entry.camera}`;
  text.textContent = `${entry.camera}  ${short(entry.score)}`;
  button.append(image, text);
  button.addEventListener("click", () => {
    const dialog = document.getElementById("large");
    dialog.querySelector("img").src = image.src;
    dialog.querySelector("p").textContent =
      `${entry.camera}, frame ${entry.frame}, score ${short(entry.score)}, ${entry.timestamp}`;
    dialog.showModal();
  });
  return button;
}

function setHealth(text, kind) {
  const health = document.getElementById("health");
  health.textContent = text;
  health.className = kind;
}

async function refresh() {
  try {
    const status = await (await fetch("status")).json();
    status.cameras.forEach(show);
    showGallery(status.gallery);
    const lost = status.cameras.filter((camera) => camera.lost).length;
    setHealth(lost ? `${lost} cameras lost` : "all cameras deliver", lost ? "bad" : "good");
  } catch {
    setHealth("no connection to the device", "bad");
  }
  setTimeout(refresh, 500);
}

function showEvent(message) {
  const event = JSON.parse(message.data);
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = event.timestamp.slice(11, 19);
  item.append(time, `${event.event}: ${event.message}`);
  const list = document.getElementById("events");
  list.prepend(item);
  while (list.children.length > 100) list.lastChild.remove();
}

for (const kind of ["pointermove", "pointerdown"]) {
  document.getElementById("gallery").addEventListener(kind, () => {
    galleryTouchedAt = performance.now();
  });
}

document.getElementById("contrast").addEventListener("change", (event) => {
  contrast = 10 ** Number(event.target.value);
  for (const [index, card] of [...cards.values()].entries()) {
    card.querySelector(".live").src = source(index);
  }
});

new EventSource("events").addEventListener("message", showEvent);
refresh();
