import { DEMANDS, END_REASONS, money, number, plural, seconds, tokens } from "./words.js";

/**
 * The facts about a finished run, as pairs of a name and a text.
 *
 * @param thinking the choice's `thinking` object
 * @param usage the chunk with `usage` and `cost`
 * @param routed the response of `POST /v1/route`, or null
 * @param elapsed the duration of the run in seconds
 */
export function endFacts(thinking, { usage, cost }, routed, elapsed) {
  const maximum = routed?.budget.max_tokens ?? thinking.max_tokens;
  return [
    ["End reason", END_REASONS[thinking.end_reason](maximum)],
    ["Thinking", describeThinking(thinking)],
    ["Budget", describeAppliedBudget(thinking, routed)],
    ["Usage", describeUsage(usage, elapsed)],
    ["Cost", cost ? describeCost(cost) : "unknown: the server has no prices set"],
  ];
}

/** The fact that earlier questions were not sent along, if there are any. */
export function leftOutFacts(count) {
  return count ? [["Left out", `${plural(count, "earlier question")}, whose request failed`]] : [];
}

function describeThinking(thinking) {
  const { tokens: all, forced_tokens: forced, forced_spans: spans, continuations, loops } = thinking;
  if (all === 0) return "none";
  const inside = spans.reduce((sum, span) => sum + span.tokens, 0);
  const parts = [`${tokens(all)}: ${number(all - inside)} sampled, ${number(inside)} forced`];
  if (continuations) parts.push(plural(continuations, "continuation"));
  if (loops) parts.push(`${plural(loops, "loop")} detected`);
  if (forced > inside) parts.push("the end marker was forced");
  return parts.join("; ");
}

function describeAppliedBudget({ tier, clamped }, routed) {
  const parts = [(tier ? `tier ${tier}` : "no tier") + describeRouting(tier, routed?.router)];
  if (routed) {
    const { min_tokens: minimum, max_tokens: maximum } = routed.budget;
    parts.push(minimum ? `${number(minimum)} to ${tokens(maximum)}` : `at most ${tokens(maximum)}`);
  }
  if (clamped) parts.push(`clamped by ${routed?.clamped_by.join(" and ") || "the server"}`);
  return parts.join("; ");
}

/** How the router's choice became the tier. */
function describeRouting(tier, router) {
  if (!router) return "";
  const { level, probabilities, tier: chosen, raised_by: field } = router;
  const odds = `(level “${level}”, ${Math.round(100 * probabilities[level])}%)`;
  if (!chosen || chosen === tier) return `, chosen by the router ${odds}`;
  if (!field) return `; the router chose ${chosen} ${odds}`;
  return `; the router chose ${chosen} ${odds}, raised by ${DEMANDS[field] ?? `“${field}”`}`;
}

function describeUsage({ prompt_tokens: prompt, completion_tokens: completion }, elapsed) {
  const rate = Math.round(completion / elapsed);
  return (
    `${plural(prompt, "prompt token")}; ${number(completion)} generated in ` +
    `${seconds(elapsed)} (${number(rate)} tokens/s)`
  );
}

function describeCost({ currency, prompt, thinking, answer, total }) {
  const parts = Object.entries({ prompt, thinking, answer });
  const details = parts.map(([name, amount]) => `${name} ${money(amount, currency)}`).join(", ");
  return `${money(total, currency)} (${details})`;
}
