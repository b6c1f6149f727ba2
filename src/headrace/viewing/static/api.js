// Asking the server: a thin bar shows whatever takes longer than 0.3 s (style.css waits for that), errors are texts.

let asking = 0;

function busy(change) {
  asking += change;
  document.getElementById("busy").hidden = asking === 0;
}

export class Refused extends Error {
  constructor(message, status, said = {}) {
    super(message);
    this.status = status;
    this.said = said;
  }
}

export async function ask(path, parameters = {}, { signal, method = "GET", body, quiet = false } = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  if (!quiet) busy(1);
  try {
    let answer;
    try {
      const sent = body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
      answer = await fetch(query.size ? `${path}?${query}` : path, { signal, method, credentials: "same-origin", ...sent });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The viewer has ended; start it again with headrace view.", 0);
    }
    const isJson = answer.headers.get("content-type")?.startsWith("application/json");
    if (answer.status === 403 && !isJson) {
      throw new Refused("This address belongs to a viewer that has ended. Open the one that headrace view printed last.", 403);
    }
    const said = await answer.json().catch(() => ({ error: `The viewer answered ${answer.status}.` }));
    if (!answer.ok) throw new Refused(said.error ?? `The viewer answered ${answer.status}.`, answer.status, said);
    return said;
  } finally {
    if (!quiet) busy(-1);
  }
}
