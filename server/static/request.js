import { given } from "./settings.js";

/** The body of a chat request. */
export function chatBody(model, messages, { tier, minimum, maximum, continuations }, sampling) {
  return {
    model,
    messages,
    budget_tier: tier,
    ...given({
      min_thinking_tokens: minimum,
      max_thinking_tokens: maximum,
      thinking: continuations === null ? null : { continuations },
    }),
    ...sampling,
    reasoning_format: "reasoning_content",
    stream: true,
    stream_options: { include_usage: true },
  };
}

/**
 * The conversation so far as messages, as one side of it goes: a prompt that ran under two budgets
 * has two answers, and each side follows its own.
 */
export function history(turns, side) {
  return turns.flatMap(({ prompt, runs }) => {
    const { answer } = runs[Math.min(side, runs.length - 1)];
    if (!answer) return [];
    return [
      { role: "user", content: prompt },
      { role: "assistant", content: answer },
    ];
  });
}
