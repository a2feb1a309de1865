import { BASE, Failure, hasKey, route, streamChat } from "./api.js";
import { endFacts, leftOutFacts } from "./facts.js";
import { asCurl, asPython } from "./snippets.js";
import { explain, PAGE_FAILED, seconds } from "./words.js";

const TICK_MS = 100;

/** One prompt under one budget, from the request to the end of the response. */
export class Run {
  #body;
  #view;
  #abort = new AbortController();
  #phase = null;
  #tokens = { thinking: 0, all: 0 };
  #routed = null;
  #ended = null;
  #usage = null;
  #leftOut;

  /** @param leftOut the number of earlier questions that the request leaves out */
  constructor(body, view, leftOut) {
    this.#body = body;
    this.#view = view;
    this.#leftOut = leftOut;
    this.answer = "";
  }

  get isStopped() {
    return this.#abort.signal.aborted;
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
      if (!chunk.choices.length) this.#usage = chunk;
      else if (chunk.usage) this.#count(chunk.usage);
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

  #enter(phase) {
    // Set once, since screen readers announce it.
    if (this.#phase !== phase) this.#view.phase = phase;
    this.#phase = phase;
  }

  #count(usage) {
    this.#tokens.all = usage.completion_tokens;
    this.#tokens.thinking = usage.completion_tokens_details.reasoning_tokens;
  }

  #addThinking(text) {
    this.#enter("thinking");
    this.#view.addThinking(text);
    this.#showUsed();
  }

  /** Show the number of thinking tokens: until it is final, the one as of the last text. */
  #showUsed() {
    const exact = this.#ended?.thinking.tokens;
    this.#view.used(exact ?? this.#tokens.thinking, exact !== undefined);
  }

  #addAnswer(text) {
    this.#enter("answering");
    this.answer += text;
    this.#view.addAnswer(text);
  }

  #tick(startedAt) {
    this.#showClock((performance.now() - startedAt) / 1000, this.#tokens.all, "about ");
  }

  #showClock(elapsed, tokens, about = "") {
    const rate = tokens ? `, ${about}${Math.round(tokens / elapsed)} tokens/s` : "";
    this.#view.clock = seconds(elapsed) + rate;
  }

  #fail(error, retry) {
    if (this.isStopped) {
      this.#view.phase = "stopped";
    } else if (error instanceof Failure) {
      const begun = this.#tokens.all > 0;
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
    const facts = endFacts(thinking, this.#usage, routed, elapsed);
    this.#view.showFacts([...facts, ...leftOutFacts(this.#leftOut)]);
  }
}
