import { readEvents } from "./sse.js";

/** The base URL of the API, relative to the URL of this page. */
export const BASE = new URL("v1", document.baseURI).href;

let key = "";

/** Send this API key with requests, or none if it is empty. It is not stored outside this page. */
export function useKey(token) {
  key = token.trim();
}

export function hasKey() {
  return key !== "";
}

/** The server rejected a request, or could not be reached; `explain` returns a text about it. */
export class Failure extends Error {
  /**
   * @param {"refused" | "unreachable" | "lost" | "broken"} kind
   * @param {{message?: string, status?: number, retryAfter?: number | null}} details
   */
  constructor(kind, { message = "", status = 0, retryAfter = null } = {}) {
    super(message);
    this.kind = kind;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Get JSON from a path relative to this page. */
export async function getJson(path) {
  return (await send(path, {})).json();
}

/** Get the budget that a chat request would get. */
export async function route(body, signal) {
  return (await send("v1/route", post(body, signal))).json();
}

/** Yield the chunks of a streamed response. Throws a `Failure` if the stream is incomplete. */
export async function* streamChat(body, signal) {
  const response = await send("v1/chat/completions", post(body, signal));
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

async function send(path, options) {
  let response;
  const headers = hasKey() ? { ...options.headers, authorization: `Bearer ${key}` } : options.headers;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Failure("unreachable");
  }
  if (response.ok) return response;
  const message = await response.json().then(({ error }) => error.message, () => "");
  const retryAfter = seconds(response.headers.get("retry-after"));
  throw new Failure("refused", { message, status: response.status, retryAfter });
}

/** Convert a `Retry-After` header, a number of seconds or a date, to seconds from now. */
function seconds(header) {
  if (header === null) return null;
  const number = Number(header);
  const wait = Number.isNaN(number) ? (Date.parse(header) - Date.now()) / 1000 : number;
  return Number.isNaN(wait) ? null : Math.max(0, Math.ceil(wait));
}
