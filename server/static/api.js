import { readEvents } from "./sse.js";

/** Where the API is, wherever this page is served from. */
export const BASE = new URL("v1", document.baseURI).href;

let key = "";

/** Send this key from now on; an empty one is none. It is kept nowhere but in this page. */
export function useKey(token) {
  key = token.trim();
}

export function hasKey() {
  return key !== "";
}

/** The server said no, or could not be asked. `kind` says which way, `words.js` what of it. */
export class Failure extends Error {
  /**
   * @param {"refused" | "unreachable" | "lost" | "broken"} kind
   * @param {{message?: string, status?: number, retryAfter?: number | null}} told
   */
  constructor(kind, { message = "", status = 0, retryAfter = null } = {}) {
    super(message);
    this.kind = kind;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** What the server holds at a path of this page's own. */
export async function getJson(path) {
  return (await ask(path, {})).json();
}

/** What this request would get, and why. */
export async function route(body, signal) {
  return (await ask("v1/route", post(body, signal))).json();
}

/** The answer's chunks. Fails unless they come to their end. */
export async function* streamChat(body, signal) {
  const response = await ask("v1/chat/completions", post(body, signal));
  let ended = false;
  try {
    for await (const data of readEvents(response.body)) {
      ended ||= data === "[DONE]";
      if (ended) continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Failure("broken", chunk.error);
      yield chunk;
    }
  } catch (error) {
    if (error instanceof Failure || signal.aborted) throw error;
  }
  if (!ended) throw new Failure("lost");
}

function post(body, signal) {
  const headers = { "content-type": "application/json" };
  return { method: "POST", headers, body: JSON.stringify(body), signal };
}

async function ask(path, options) {
  let response;
  const headers = hasKey() ? { ...options.headers, authorization: `Bearer ${key}` } : options.headers;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Failure("unreachable");
  }
  if (response.ok) return response;
  const message = await response.json().then((told) => told.error.message, () => "");
  const retryAfter = seconds(response.headers.get("retry-after"));
  throw new Failure("refused", { message, status: response.status, retryAfter });
}

/** `Retry-After`, a number of seconds or a date, as seconds from now. */
function seconds(header) {
  if (header === null) return null;
  const given = Number(header);
  const wait = Number.isNaN(given) ? (Date.parse(header) - Date.now()) / 1000 : given;
  return Number.isNaN(wait) ? null : Math.max(0, Math.ceil(wait));
}
