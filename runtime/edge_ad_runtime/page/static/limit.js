// Change the limit of one camera: try it out on the last parts, then confirm.

import { draw } from "./chart.js";
import { plural, score } from "./format.js";
import { post, who } from "./server.js";

const dialog = document.getElementById("limit");
const find = (selector) => dialog.querySelector(selector);
let camera = null;

export function askLimit(asked) {
  camera = asked;
  const { threshold, model_threshold: own, threshold_rule: rule } = camera.status;
  const by = camera.status.threshold_set_by;
  const scores = camera.parts.map((part) => part.score);
  const ends = [...scores, threshold, own];
  const margin = 0.1 * (Math.max(...ends) - Math.min(...ends)) || 0.5 * Math.abs(own) || 1;
  find("#limit-title").textContent = `Limit of ${camera.name}`;
  find(".now").textContent =
    `It is ${score(threshold)} now: ${rule}.` +
    (by === null ? "" : ` Its own is ${score(own)}.`) +
    " Parts at or above the limit are anomalous. Other cameras keep theirs.";
  find(".slider").min = Math.min(...ends) - margin;
  find(".slider").max = Math.max(...ends) + margin;
  find(".reset").textContent = `Reset to its own, ${score(own)}`;
  find(".reset").hidden = by === null;
  find(".who").value = who.get();
  find(".note").textContent = "";
  dialog.showModal();
  tryOut(threshold);
  find(".value").focus();
}

/** Show what another limit would have meant for the last parts. */
function tryOut(value, source = null) {
  if (source !== find(".slider")) find(".slider").value = value;
  if (source !== find(".value")) find(".value").value = Number(Number(value).toPrecision(6));
  const limit = find(".value").value === "" ? NaN : Number(find(".value").value);
  const ready = Number.isFinite(limit) && limit !== Number(camera.status.threshold.toPrecision(6));
  find(".set").disabled = !ready;
  find(".set").textContent = ready ? `Set the limit to ${score(limit)}` : "Set the limit";
  const parts = camera.parts;
  const stopped = (bound) => parts.filter((part) => part.score >= bound).length;
  find(".preview").textContent = !parts.length
    ? "No part has come yet to try the limit on."
    : !Number.isFinite(limit)
      ? "Expected a number."
      : `${stopped(limit)} of the last ${plural(parts.length, "part", "parts")} would be stopped; ` +
        `the limit in force stops ${stopped(camera.status.threshold)}.`;
  draw(find(".chart"), parts, camera.status.threshold, Number.isFinite(limit) ? limit : null);
}

async function send(threshold) {
  who.set(find(".who").value.trim());
  try {
    await post("threshold", { camera: camera.name, threshold, who: who.get() });
    dialog.close();
  } catch (error) {
    find(".note").textContent = error.message;
  }
}

for (const selector of [".slider", ".value"]) {
  find(selector).addEventListener("input", (event) => tryOut(event.target.value, event.target));
}
find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send(Number(find(".value").value));
});
find(".reset").addEventListener("click", () => send(null));
find(".close").addEventListener("click", () => dialog.close());
