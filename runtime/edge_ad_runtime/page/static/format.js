// Numbers, times and words for people.

export const score = (value) =>
  value === null || value === undefined ? "–" : Number(value).toPrecision(4);

export const whole = (value) => Number(value).toLocaleString();

export const plural = (count, one, many) => `${whole(count)} ${count === 1 ? one : many}`;

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat([], { day: "numeric", month: "short" });

/** The local time of an ISO 8601 text; with the day unless that is today. */
export function time(text) {
  const moment = new Date(text);
  const today = moment.toDateString() === new Date().toDateString();
  return today ? clock.format(moment) : `${day.format(moment)}, ${clock.format(moment)}`;
}

export function ago(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ago`;
}

/** How many good parts score as high; empty where the model file cannot tell. */
export function rarity(part) {
  if (part.p_value === null || part.p_value === undefined) return "";
  const expected = 1000 * part.p_value;
  const number = expected < 0.01 ? "fewer than 0.01" : Number(expected.toPrecision(2)).toLocaleString();
  return `${number} in 1,000 good parts score as high`;
}

/** Where a part is anomalous; empty for a good one. */
export function regions(part) {
  const [strongest] = part.regions ?? [];
  if (!strongest) return "";
  const { x, y, width, height } = strongest;
  return (
    `${plural(part.regions.length, "region", "regions")}, the strongest ${width} × ${height} pixels ` +
    `at (${x}, ${y})`
  );
}

export const word = (part) => (part.anomalous ? "ANOMALOUS" : "GOOD");
export const against = (part) =>
  `${score(part.score)} ${part.anomalous ? "≥" : "<"} ${score(part.threshold)}`;
