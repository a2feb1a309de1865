/** The texts of the page. */

export const END_REASONS = {
  natural: () => "The model ended its thinking on its own.",
  max: (maximum) => `The thinking reached its maximum of ${tokens(maximum)}.`,
  loop: () => "The thinking repeated itself, so the server ended it.",
  settled: () => "The answer was settled, so the server ended the thinking.",
  unsure: () => "The model was lost, so the server ended the thinking.",
  length: () => "The context or the request's token limit was exhausted.",
  stop: () => "The model ended its turn while thinking.",
  cancelled: () => "The request was cancelled.",
  disabled: () => "Thinking was disabled.",
};

/** What raises the tier that the router chose, by the request's field. */
export const DEMANDS = {
  min_thinking_tokens: "the minimum",
  "thinking.continuations": "the continuations",
};

export const STATUS = {
  waiting: "Waiting for the first token.",
  thinking: "Thinking.",
  answering: "Answering.",
  done: "Done.",
  stopped: "Stopped. The text received so far is kept.",
  failed: "",
};

export const PAGE_FAILED = "This page failed. See the browser's console for details.";

/** Why a response failed, and when to try again if that is known. */
export function explain(failure, begun = false) {
  const text = reason(failure, begun);
  const { retryAfter } = failure;
  const isExplained = !retryAfter || /try again/i.test(text);
  return isExplained ? text : `${text} Try again in ${retryAfter} s.`;
}

function reason(failure, begun) {
  switch (failure.kind) {
    case "unreachable":
      return "Cannot reach the server. Is it running?";
    case "lost":
      return begun
        ? "The connection was lost. The text received so far is kept."
        : "The connection was lost before any text was received.";
    case "broken":
      return `The response failed: ${sentence(failure.message)}`;
    default:
      return refusal(failure);
  }
}

function refusal({ status, message }) {
  const details = message ? `: ${sentence(message)}` : ".";
  if (status === 429) return `Too many requests${details}`;
  if (status === 503) return `The server is not ready${details}`;
  if (status === 401 || status === 403) return `Access denied${details}`;
  if (status >= 500) return `Server error${details}`;
  return `The server rejected the request${details}`;
}

function sentence(text) {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

export function tokens(count) {
  return plural(count, "token");
}

export function plural(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}

export function number(count) {
  return count.toLocaleString("en");
}

/** A duration, with tenths of a second if it is short. */
export function seconds(count) {
  return `${count.toFixed(count < 100 ? 1 : 0)} s`;
}

export function money(amount, currency) {
  return `${amount.toLocaleString("en", { maximumSignificantDigits: 3 })} ${currency}`;
}

/** A short description of a requested budget. */
export function describeBudget({ tier, minimum, maximum, continuations }) {
  const parts = [`tier ${tier}`];
  if (minimum !== null) parts.push(`at least ${number(minimum)}`);
  if (maximum !== null) parts.push(maximum < 0 ? "no maximum" : `at most ${number(maximum)}`);
  if (continuations !== null) parts.push(plural(continuations, "continuation"));
  return parts.join(", ");
}
