import { END_REASONS, money, number, often, seconds, tokens } from "./words.js";

/**
 * What there is to say of a run that came to its end, as pairs of a name and a text.
 *
 * @param thinking the choice's `thinking` object
 * @param usage the chunk with `usage` and `cost`
 * @param routed the dry run's answer, or null
 * @param elapsed seconds that it took
 */
export function endFacts(thinking, { usage, cost }, routed, elapsed) {
  const most = routed?.budget.max_tokens ?? thinking.max_tokens;
  return [
    ["Why the thinking ended", END_REASONS[thinking.end_reason](most)],
    ["Thinking", thinkingTold(thinking)],
    ["Budget", budgetTold(thinking, routed)],
    ["In all", usageTold(usage, elapsed)],
    ["Cost", cost ? costTold(cost) : "unknown: the server has no prices"],
  ];
}

function thinkingTold(thinking) {
  const { tokens: all, forced_tokens: forced, forced_spans: spans, continuations, loops } = thinking;
  if (all === 0) return "none";
  const inside = spans.reduce((sum, span) => sum + span.tokens, 0);
  const parts = [`${tokens(all)}: ${number(all - inside)} sampled, ${number(inside)} forced`];
  if (continuations) parts.push(`sent back ${often(continuations)}`);
  if (loops) parts.push(`found to repeat itself ${often(loops)}`);
  if (forced > inside) parts.push("the end marker was forced");
  return parts.join("; ");
}

function budgetTold({ tier, clamped }, routed) {
  const parts = [tier ? `tier ${tier}` : "of no tier"];
  if (routed?.router) {
    const { level, probabilities } = routed.router;
    const chance = Math.round(100 * probabilities[level]);
    parts[0] += `, by the router (it gives “${level}” ${chance}%)`;
  }
  if (routed) {
    const { min_tokens: least, max_tokens: most } = routed.budget;
    parts.push(least ? `${number(least)} to ${tokens(most)}` : `at most ${tokens(most)}`);
  }
  if (clamped) parts.push(`cut by ${routed?.clamped_by.join(" and ") || "the server"}`);
  return parts.join("; ");
}

function usageTold({ prompt_tokens: prompt, completion_tokens: completion }, elapsed) {
  const rate = Math.round(completion / elapsed);
  return (
    `${number(prompt)} tokens of prompt; ${number(completion)} generated in ` +
    `${seconds(elapsed)}, ${number(rate)} a second`
  );
}

function costTold({ currency, prompt, thinking, answer, total }) {
  const parts = Object.entries({ prompt, thinking, answer });
  const told = parts.map(([name, amount]) => `${name} ${money(amount, currency)}`).join(", ");
  return `${money(total, currency)} (${told})`;
}
