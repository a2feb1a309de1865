import { BASE, Failure, hasKey, route, streamChat } from "./api.js";
import { endFacts } from "./facts.js";
import { asCurl, asPython } from "./snippets.js";
import { explain, seconds } from "./words.js";

const TICK_MS = 100;

/** One prompt under one budget: from the request to the end of its answer. */
export class Run {
  #body;
  #view;
  #abort = new AbortController();
  #pieces = { reasoning: 0, answer: 0 };
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

  /** Comes back when it is over, whichever way. */
  async go(retry) {
    const view = this.#view;
    const began = performance.now();
    const clock = setInterval(() => this.#tick(began), TICK_MS);
    const asked = [BASE, this.#body, hasKey()];
    view.showCode(asCurl(...asked), asPython(...asked));
    try {
      await this.#follow();
      view.phase = "done";
    } catch (error) {
      this.#break(error, retry);
    }
    clearInterval(clock);
    this.#tick(began);
    if (this.#usage) this.#conclude((performance.now() - began) / 1000);
  }

  async #follow() {
    const { signal } = this.#abort;
    for await (const chunk of streamChat(this.#body, signal)) {
      this.#routed ??= this.#learnLimits(signal);
      if (chunk.usage) this.#usage = chunk;
      for (const choice of chunk.choices) {
        if (choice.thinking) this.#ended = choice;
        const { reasoning_content: thought, content } = choice.delta;
        if (thought) this.#think(thought);
        if (content) this.#say(content);
      }
    }
  }

  /** The minimum and the cap, by a dry run of the request that is under way. */
  async #learnLimits(signal) {
    try {
      const routed = await route(this.#body, signal);
      if (routed.router) this.#view.tier = routed.tier;
      this.#view.limits(routed.budget.min_tokens, routed.budget.max_tokens);
      this.#showUsed();
      return routed;
    } catch {
      return null; // the meter does without
    }
  }

  #think(text) {
    if (++this.#pieces.reasoning === 1) this.#view.phase = "thinking";
    this.#view.think(text);
    this.#showUsed();
  }

  /** The exact count comes at the end; until then a piece of text is taken for a token. */
  #showUsed() {
    const exact = this.#ended?.thinking.tokens;
    this.#view.used(exact ?? this.#pieces.reasoning, exact !== undefined);
  }

  #say(text) {
    if (++this.#pieces.answer === 1) this.#view.phase = "answering";
    this.answer += text;
    this.#view.answer(text);
  }

  #tick(began) {
    const pieces = this.#pieces.reasoning + this.#pieces.answer;
    this.#showClock((performance.now() - began) / 1000, pieces, "about ");
  }

  #showClock(elapsed, tokens, about = "") {
    const rate = tokens ? `, ${about}${Math.round(tokens / elapsed)} tokens/s` : "";
    this.#view.clock = seconds(elapsed) + rate;
  }

  #break(error, retry) {
    if (this.#abort.signal.aborted) {
      this.#view.phase = "stopped";
    } else if (error instanceof Failure) {
      const begun = this.#pieces.reasoning + this.#pieces.answer > 0;
      this.#view.fail(explain(error, begun), error.retryAfter, retry);
    } else {
      this.#view.fail("This page failed; the browser's console says where.", null, retry);
      throw error;
    }
  }

  async #conclude(elapsed) {
    const { thinking } = this.#ended;
    this.#showClock(elapsed, this.#usage.usage.completion_tokens);
    this.#showUsed();
    this.#view.mark(thinking.forced_spans);
    const routed = await this.#routed;
    this.#view.tell(endFacts(thinking, this.#usage, routed, elapsed));
  }
}
