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
 * Build the messages of a conversation and its next question, for one side of a comparison: a
 * prompt that ran under two budgets has two answers, and each side continues from its own.
 *
 * A question that was stopped before its answer becomes part of the next message, since many chat
 * templates refuse two messages of the user in a row. One whose request failed is left out: it may
 * be what failed, such as a prompt that is too long.
 *
 * @returns {{messages: object[], leftOut: number}} and the number of questions that are left out
 */
export function conversation(turns, side, question) {
  const messages = [];
  let unanswered = [];
  let leftOut = 0;
  for (const { prompt, runs } of turns) {
    const { answer, isStopped } = runs[Math.min(side, runs.length - 1)];
    if (answer) {
      const asked = [...unanswered, prompt].join("\n\n");
      messages.push({ role: "user", content: asked }, { role: "assistant", content: answer });
      unanswered = [];
    } else if (isStopped) unanswered.push(prompt);
    else leftOut += 1;
  }
  messages.push({ role: "user", content: [...unanswered, question].join("\n\n") });
  return { messages, leftOut };
}
