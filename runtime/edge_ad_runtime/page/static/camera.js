// The card of one camera. Pictures and verdict change together, from one message.

import { draw } from "./chart.js";
import { against, ago, plural, rarity, score, time, whole, word } from "./format.js";
import { askLimit } from "./limit.js";
import { openPart } from "./part.js";
import { load } from "./pictures.js";
import { post } from "./server.js";

const RETRY_MS = 700;
const SPEAK_MS = 5000;
const OLD_SECONDS = 5;
const MOST_PARTS = 300;
const WAITING = {
  "no camera": "No camera: it could not be opened. It is tried again and again.",
  "camera lost": "The camera is lost. It is tried again and again.",
  "no part yet": "Waiting for the first part",
  "waiting for a trigger": "Waiting for a trigger",
  running: "",
};

export class Camera {
  constructor(name) {
    this.name = name;
    this.parts = [];
    this.shown = null;
    this.status = null;
    this.wanted = null;
    this.loading = false;
    this.dismissed = new Set();
    this.spokenAt = -Infinity;
    this.card = document.importNode(document.getElementById("camera").content, true).firstElementChild;
    this.partAt = () => undefined;
    this.find(".name").textContent = name;
    this.card.ariaLabel = name;
    this.find(".look").ariaLabel = `Enlarge the last part of ${name}`;
    this.find(".chart").addEventListener("click", (event) => this.openAt(event));
    this.find(".look").addEventListener("click", () => this.open(this.shown));
    this.find(".mark").addEventListener("click", () => this.open(this.shown));
    this.find(".change").addEventListener("click", () => askLimit(this));
    this.find(".restart").addEventListener("click", () => this.restart());
  }

  find(selector) {
    return this.card.querySelector(selector);
  }

  /** Show a part once all its pictures are here; only the newest one is worth loading. */
  async show(part) {
    this.wanted = part;
    if (this.loading) return;
    this.loading = true;
    while (this.wanted) {
      const next = this.wanted;
      this.wanted = null;
      try {
        this.put(next, await load(next));
      } catch {
        // A newer one takes its place, or it is asked for again.
        await new Promise((done) => setTimeout(done, RETRY_MS));
        this.wanted ??= next;
      }
    }
    this.loading = false;
  }

  /** Change pictures and words in one go: the browser draws nothing in between. */
  put(part, figures) {
    this.shown = part;
    this.find(".pictures").replaceChildren(figures);
    this.card.dataset.part = part.id;
    this.write();
    if (part.anomalous) this.speak(`${this.name}: anomalous, ${score(part.score)}`);
  }

  update(status) {
    const before = this.status?.state;
    this.status = status;
    this.parts = [...this.parts, ...status.parts].slice(-MOST_PARTS);
    this.find(".frames").textContent = whole(status.shift.frames);
    this.find(".anomalous").textContent = whole(status.shift.anomalous);
    this.find(".failed").textContent = whole(status.shift.failed);
    this.find(".threshold").textContent = score(status.threshold);
    this.find(".since").textContent = this.since();
    this.find(".model").textContent =
      status.model + (status.latency_ms === null ? "" : `, ${status.latency_ms} ms for a part`);
    this.warn(status.warnings);
    this.write();
    if (before !== undefined && before !== status.state && status.lost) {
      this.speak(`${this.name}: camera lost`);
    }
    if (status.parts.length || this.drawnLimit !== status.threshold) this.redraw();
  }

  redraw() {
    if (!this.status) return;
    this.drawnLimit = this.status.threshold;
    this.partAt = draw(this.find(".chart"), this.parts, this.status.threshold);
  }

  /** Write the words: the verdict of the part that is shown, or what is being waited for. */
  write() {
    const part = this.shown;
    const state = this.status?.state ?? "running";
    const lost = this.status?.lost ?? false;
    this.card.dataset.verdict = lost ? "lost" : part ? (part.anomalous ? "bad" : "good") : "none";
    this.card.classList.toggle("alarm", this.status?.alarm ?? false);
    this.find(".word").textContent = lost ? "CAMERA LOST" : part ? word(part) : "Waiting";
    this.find(".score").textContent = lost || !part ? "" : against(part);
    this.find(".waiting").textContent = part && !lost ? "" : WAITING[state] || "Loading the last part";
    this.find(".facts").textContent = part ? this.facts(part, lost) : "";
    const mark = this.find(".mark");
    mark.disabled = !part;
    mark.textContent = part?.anomalous ? "This was a false alarm" : "This was missed";
  }

  facts(part, lost) {
    const { latest, seconds_since: seconds } = this.status ?? {};
    const age = latest === part.id && seconds > OLD_SECONDS ? `, ${ago(seconds)}` : "";
    const before = lost ? `Last part: ${word(part)} ${against(part)}\n` : "";
    const rare = rarity(part);
    return `${before}Frame ${whole(part.frame)}, ${time(part.timestamp)}${age}${rare && `\n${rare}`}`;
  }

  since() {
    const { shift, threshold_set_by: by } = this.status;
    const rule = by === null ? "the camera’s own limit" : `limit set by ${by}`;
    return `Since ${time(shift.started)}; ${rule}`;
  }

  warn(warnings) {
    const wanted = warnings.filter((warning) => !this.dismissed.has(warning.number));
    const key = wanted.map((warning) => warning.number).join();
    if (key === this.warned) return;
    this.warned = key;
    this.find(".warnings").replaceChildren(...wanted.map((warning) => this.warning(warning)));
  }

  warning(warning) {
    const box = document.createElement("div");
    const text = document.createElement("p");
    const kind = document.createElement("strong");
    const button = document.createElement("button");
    box.className = "warning";
    kind.textContent = warning.event[0].toUpperCase() + warning.event.slice(1);
    text.append(kind, ` at ${time(warning.timestamp)}: ${warning.message}`);
    button.textContent = "✕";
    button.ariaLabel = "Dismiss";
    button.addEventListener("click", () => {
      this.dismissed.add(warning.number);
      this.warn(this.status.warnings);
    });
    box.append(text, button);
    return box;
  }

  openAt(event) {
    const point = this.partAt(event.offsetX);
    this.open(point && this.whole(point));
  }

  open(part) {
    if (part) openPart(part, () => this.parts.map((point) => this.whole(point)));
  }

  whole(point) {
    return { ...point, camera: this.name, timestamp: point.time };
  }

  async restart() {
    const { shift } = this.status;
    const counted = plural(shift.frames, "part", "parts");
    const since = time(shift.started);
    if (!window.confirm(`Set the counts of ${this.name} to zero? ${counted} since ${since}.`)) return;
    await post("shift", { camera: this.name }).catch((error) => window.alert(error.message));
  }

  /** Tell a screen reader, but not more often than a person can listen. */
  speak(text) {
    if (performance.now() - this.spokenAt < SPEAK_MS) return;
    this.spokenAt = performance.now();
    this.find(".spoken").textContent = text;
  }
}
