import { withoutNulls } from "./settings.js";

/** Build the body of a chat request. */
export function chatBody(model, messages, { tier, minimum, maximum, continuations }, sampling) {
  return {
    model,
    messages,
    budget_tier: tier,
    ...withoutNulls({
      min_thinking_tokens: minimum,
      max_thinking_tokens: maximum,
      thinking: continuations === null ? null : { continuations },
    }),
    ...sampling,
    reasoning_format: "reasoning_content",
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
  };
}

/**
 * Build the messages of the conversation so far, for one side of a comparison: a prompt that ran
 * under two budgets has two answers, and each side continues from its own.
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
