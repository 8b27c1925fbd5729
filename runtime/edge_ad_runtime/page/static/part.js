// One part held still: large, with the buttons for a verdict that was wrong.

import { against, rarity, regions, time, whole as number, word } from "./format.js";
import { load } from "./pictures.js";
import { post, who } from "./server.js";

const dialog = document.getElementById("part");
const find = (selector) => dialog.querySelector(selector);
let held = null;
let newest = () => [];
let among = [];

/** Show a part; `parts` gives those among which one can go on, the oldest first. */
export function openPart(part, parts) {
  newest = parts;
  among = parts().some((one) => one.id === part.id) ? [] : [part];
  show(part);
}

async function show(part) {
  held = part;
  find(".pictures").replaceChildren();
  find(".name").textContent = part.camera;
  find(".word").textContent = word(part);
  find(".score").textContent = against(part);
  find(".facts").textContent = facts(part);
  dialog.dataset.verdict = part.anomalous ? "bad" : "good";
  offer("");
  find(".earlier").disabled = !beside(-1);
  find(".later").disabled = !beside(1);
  if (!dialog.open) dialog.showModal();
  try {
    const whole = await (await fetch(`part/${part.id}`)).json();
    const figures = await load(whole);
    if (held !== part) return;
    find(".facts").textContent = facts(whole);
    find(".pictures").replaceChildren(figures);
  } catch {
    if (held === part) {
      find(".note").textContent = "This part is too old: its picture is no longer kept.";
      find(".mark").disabled = true;
    }
  }
}

/** The part before or after the one that is shown; none at the ends. */
function beside(step) {
  // The page forgets its oldest parts while somebody looks at one of them.
  const known = new Set(among.map((part) => part.id));
  among.push(...newest().filter((part) => !known.has(part.id)));
  const place = among.findIndex((part) => part.id === held?.id);
  return place < 0 ? undefined : among[place + step];
}

function turn(step) {
  const part = beside(step);
  if (part) show(part);
}

function facts(part) {
  const frame = part.frame === undefined ? "" : `Frame ${number(part.frame)}, `;
  return [`${frame}${time(part.timestamp)}`, rarity(part), regions(part)].filter(Boolean).join("\n");
}

/** Show which mark can be made, or taken back. */
function offer(note, marked = false) {
  find(".note").textContent = note;
  find(".mark").textContent = held.anomalous ? "This was a false alarm" : "This was missed";
  find(".mark").disabled = false;
  find(".mark").hidden = marked;
  find(".undo").hidden = !marked;
}

async function mark(kind) {
  const part = held;
  try {
    const found = await post("mark", { id: part.id, mark: kind, who: who.get() });
    if (held === part) offer(kind ? `Saved as ${found.path}` : "Taken back.", kind !== null);
  } catch (error) {
    if (held === part) find(".note").textContent = error.message;
  }
}

find(".mark").addEventListener("click", () => mark(held.anomalous ? "false alarm" : "missed"));
find(".undo").addEventListener("click", () => mark(null));
find(".earlier").addEventListener("click", () => turn(-1));
find(".later").addEventListener("click", () => turn(1));
find(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  held = null;
});
