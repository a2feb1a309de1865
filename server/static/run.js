import { BASE, Failure, hasKey, route, streamChat } from "./api.js";
import { endFacts } from "./facts.js";
import { asCurl, asPython } from "./snippets.js";
import { explain, PAGE_FAILED, seconds } from "./words.js";

const TICK_MS = 100;

/** One prompt under one budget, from the request to the end of the response. */
export class Run {
  #body;
  #view;
  #abort = new AbortController();
  #deltas = { reasoning: 0, answer: 0 };
  #routed = null;
  #ended = null;
  #usage = null;

  constructor(body, view) {
    this.#body = body;
    this.#view = view;
    this.answer = "";
  }

  stop() {
    this.#abort.abort();
  }

  /** Run until the response is complete, stopped or failed; never rejects for a `Failure`. */
  async start(retry) {
    const view = this.#view;
    const startedAt = performance.now();
    const clock = setInterval(() => this.#tick(startedAt), TICK_MS);
    const request = [BASE, this.#body, hasKey()];
    view.showCode(asCurl(...request), asPython(...request));
    try {
      await this.#receive();
      view.phase = "done";
    } catch (error) {
      this.#fail(error, retry);
    }
    clearInterval(clock);
    this.#tick(startedAt);
    if (this.#usage) this.#conclude((performance.now() - startedAt) / 1000);
  }

  async #receive() {
    const { signal } = this.#abort;
    for await (const chunk of streamChat(this.#body, signal)) {
      this.#routed ??= this.#fetchLimits(signal);
      if (chunk.usage) this.#usage = chunk;
      for (const choice of chunk.choices) {
        if (choice.thinking) this.#ended = choice;
        const { reasoning_content: thinking, content } = choice.delta;
        if (thinking) this.#addThinking(thinking);
        if (content) this.#addAnswer(content);
      }
    }
  }

  /** Show the minimum and the maximum, from `POST /v1/route` with the same request. */
  async #fetchLimits(signal) {
    try {
      const routed = await route(this.#body, signal);
      if (routed.router) this.#view.tier = routed.tier;
      this.#view.limits(routed.budget.min_tokens, routed.budget.max_tokens);
      this.#showUsed();
      return routed;
    } catch {
      return null; // the page works without them
    }
  }

  #addThinking(text) {
    if (++this.#deltas.reasoning === 1) this.#view.phase = "thinking";
    this.#view.addThinking(text);
    this.#showUsed();
  }

  /** Show the number of thinking tokens: until the exact one arrives, the number of deltas. */
  #showUsed() {
    const exact = this.#ended?.thinking.tokens;
    this.#view.used(exact ?? this.#deltas.reasoning, exact !== undefined);
  }

  #addAnswer(text) {
    if (++this.#deltas.answer === 1) this.#view.phase = "answering";
    this.answer += text;
    this.#view.addAnswer(text);
  }

  #tick(startedAt) {
    const deltas = this.#deltas.reasoning + this.#deltas.answer;
    this.#showClock((performance.now() - startedAt) / 1000, deltas, "about ");
  }

  #showClock(elapsed, tokens, about = "") {
    const rate = tokens ? `, ${about}${Math.round(tokens / elapsed)} tokens/s` : "";
    this.#view.clock = seconds(elapsed) + rate;
  }

  #fail(error, retry) {
    if (this.#abort.signal.aborted) {
      this.#view.phase = "stopped";
    } else if (error instanceof Failure) {
      const begun = this.#deltas.reasoning + this.#deltas.answer > 0;
      this.#view.fail(explain(error, begun), error.retryAfter, retry);
    } else {
      this.#view.fail(PAGE_FAILED, null, retry);
      throw error;
    }
  }

  async #conclude(elapsed) {
    const { thinking } = this.#ended;
    this.#showClock(elapsed, this.#usage.usage.completion_tokens);
    this.#showUsed();
    this.#view.mark(thinking.forced_spans);
    const routed = await this.#routed;
    this.#view.showFacts(endFacts(thinking, this.#usage, routed, elapsed));
  }
}
