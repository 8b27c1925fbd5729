// Requests that change something.

/** Send JSON and return the answer; throws an error with the server's sentence. */
export async function post(path, fields) {
  let answer;
  try {
    answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(fields),
    });
  } catch {
    throw new Error("There is no connection to the device.");
  }
  const found = await answer.json().catch(() => ({ error: `the device answered ${answer.status}` }));
  if (!answer.ok) throw new Error(found.error);
  return found;
}

/** Who uses this browser, as last written in a dialog. */
export const who = {
  get: () => localStorage.getItem("edge-ad who") ?? "",
  set: (name) => localStorage.setItem("edge-ad who", name),
};
