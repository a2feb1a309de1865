/** What the page says, in words. */

export const END_REASONS = {
  natural: () => "The model closed its thinking by itself.",
  max: (most) => `It came to its maximum of ${tokens(most)}.`,
  loop: () => "It went round in circles, so the server closed it.",
  length: () => "The context, or the request's length, left no more room.",
  stop: () => "The turn ended in the middle of it.",
  cancelled: () => "It was cancelled.",
  disabled: () => "There was to be no thinking.",
};

export const STATUS = {
  waiting: "Waiting for the first token.",
  thinking: "Thinking.",
  answering: "Answering.",
  done: "Done.",
  stopped: "Stopped by you. What had come by then is kept.",
  failed: "",
};

/** Why there is no answer, or only part of one, and when to try again where that is known. */
export function explain(failure, begun = false) {
  const words = reason(failure, begun);
  const { retryAfter } = failure;
  const told = !retryAfter || /try again/i.test(words);
  return told ? words : `${words} Try again in ${retryAfter} s.`;
}

function reason(failure, begun) {
  switch (failure.kind) {
    case "unreachable":
      return "The server cannot be reached. Is it running?";
    case "lost":
      return begun
        ? "The connection was lost. What had come by then is kept."
        : "The connection was lost before anything came.";
    case "broken":
      return `The server broke the answer off: ${sentence(failure.message)}`;
    default:
      return refusal(failure);
  }
}

function refusal({ status, message }) {
  const because = message ? `: ${sentence(message)}` : ".";
  if (status === 429) return `The server has too much to do just now${because}`;
  if (status === 503) return `The server cannot answer yet${because}`;
  if (status === 401 || status === 403) return `The server does not let this page in${because}`;
  if (status >= 500) return `The server failed${because}`;
  return `The server did not take this request${because}`;
}

function sentence(text) {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** How often, after "sent back". */
export function often(count) {
  return count === 1 ? "once" : `${count} times`;
}

export function tokens(count) {
  return `${number(count)} ${count === 1 ? "token" : "tokens"}`;
}

export function number(count) {
  return count.toLocaleString("en");
}

/** A duration: tenths matter while it is short. */
export function seconds(count) {
  return `${count.toFixed(count < 100 ? 1 : 0)} s`;
}

export function money(amount, currency) {
  return `${amount.toLocaleString("en", { maximumSignificantDigits: 3 })} ${currency}`;
}

/** What a budget asks for, in a few words. */
export function describeBudget({ tier, minimum, maximum, continuations }) {
  const parts = [`tier ${tier}`];
  if (minimum !== null) parts.push(`at least ${number(minimum)}`);
  if (maximum !== null) parts.push(maximum < 0 ? "no cap" : `at most ${number(maximum)}`);
  if (continuations !== null) parts.push(`sent back ${often(continuations)}`);
  return parts.join(", ");
}
