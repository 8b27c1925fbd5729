// Scores over time, with axes and the limit.

import { score, time } from "./format.js";

const LEFT = 46;
const BOTTOM = 20;
const TOP = 8;
const GAP = 40;

/**
 * Draw the parts; `preview`, if given, is a limit that is only tried out.
 * Returns a function from a horizontal position in CSS pixels to the part there.
 */
export function draw(canvas, parts, limit, preview = null) {
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const scale = window.devicePixelRatio;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const style = getComputedStyle(canvas);
  const color = (name) => style.getPropertyValue(name);
  pen.font = `12px ${style.fontFamily}`;

  const values = [...parts.map((part) => part.score), limit, ...(preview === null ? [] : [preview])];
  const steps = height < 100 ? 2 : 4;
  const [low, high, step] = range(Math.min(...values), Math.max(...values), steps);
  const y = (value) => height - BOTTOM - ((value - low) / (high - low)) * (height - BOTTOM - TOP);
  const slot = (width - LEFT) / Math.max(parts.length, 60);
  const x = (index) => width - (parts.length - index) * slot;

  pen.strokeStyle = color("--line");
  pen.fillStyle = color("--quiet");
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (let value = low; value <= high + step / 2; value += step) {
    line(pen, LEFT, Math.round(y(value)) + 0.5, width);
    pen.fillText(Number(value.toPrecision(6)), LEFT - 6, y(value));
  }
  for (const [index, part] of parts.entries()) {
    pen.fillStyle = color(part.anomalous ? "--bad-light" : "--good-light");
    pen.fillRect(x(index), y(part.score), Math.max(1, slot - 1), y(low) - y(part.score));
  }
  pen.lineWidth = 2;
  pen.strokeStyle = color("--limit");
  // The limit that was in force at each part, then the one in force now.
  pen.beginPath();
  pen.moveTo(LEFT, y(parts.length ? parts[0].threshold : limit));
  for (const [index, part] of parts.entries()) {
    pen.lineTo(x(index), y(part.threshold));
    pen.lineTo(x(index) + slot, y(part.threshold));
  }
  pen.lineTo(width, y(limit));
  pen.stroke();
  if (preview !== null) {
    pen.setLineDash([6, 5]);
    pen.strokeStyle = color("--text");
    line(pen, LEFT, y(preview), width);
    pen.setLineDash([]);
  }
  pen.fillStyle = color("--quiet");
  pen.textBaseline = "alphabetic";
  pen.textAlign = "left";
  let free = LEFT;
  for (const [index, part] of parts.entries()) {
    const text = time(part.time);
    const size = pen.measureText(text).width;
    const start = Math.min(x(index), width - size);
    if (start < free) continue;
    pen.fillRect(x(index), height - BOTTOM, 1, 4);
    pen.fillText(text, start, height - 2);
    free = start + size + GAP;
  }
  canvas.setAttribute("aria-label", describe(parts, limit));
  return (position) => parts[Math.floor((position - x(0)) / slot)];
}

function line(pen, from, y, to) {
  pen.beginPath();
  pen.moveTo(from, y);
  pen.lineTo(to, y);
  pen.stroke();
}

/** The ends and the step of an axis of about so many steps, all of them round numbers. */
function range(lowest, high, steps) {
  // Even the lowest bar is seen; scores are distances, so there is seldom anything below 0.
  const room = lowest - 0.3 * (high - lowest);
  const low = lowest >= 0 ? Math.max(0, room) : room;
  const span = high - low || Math.abs(high) || 1;
  const rough = span / steps;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= rough);
  return [Math.floor(low / step) * step, Math.ceil((high + 0.02 * span) / step) * step, step];
}

function describe(parts, limit) {
  if (!parts.length) return `No scores yet; the limit is ${score(limit)}`;
  const anomalous = parts.filter((part) => part.anomalous).length;
  return (
    `Scores of the last ${parts.length} parts, from ${time(parts[0].time)} on: ` +
    `${anomalous} anomalous; the limit is ${score(limit)}`
  );
}
