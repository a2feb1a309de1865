import { number, tokens } from "./words.js";

/** The number of thinking tokens, between the minimum and the maximum. */
export class Meter {
  #bar;
  #count;
  #scale;
  #minimum = 0;
  #maximum = null;

  constructor(section) {
    this.#bar = section.querySelector(".meter");
    this.#count = section.querySelector(".count");
    this.#scale = section.querySelector(".scale");
  }

  /** Set the budget, once it is known. */
  limits(minimum, maximum) {
    this.#minimum = minimum;
    this.#maximum = maximum;
    this.#bar.hidden = this.#scale.hidden = !maximum;
    const mark = this.#bar.querySelector(".minimum");
    mark.hidden = !minimum;
    mark.style.insetInlineStart = `${(100 * minimum) / maximum}%`;
    const low = minimum ? `at least ${number(minimum)}` : "";
    this.#scale.querySelector(".scale-minimum").textContent = low;
    this.#scale.querySelector(".scale-maximum").textContent = `at most ${number(maximum)}`;
    this.#bar.setAttribute("aria-valuemax", maximum);
  }

  /** Show the number of tokens used, which is approximate unless `exact`. */
  show(used, exact) {
    const count = exact ? tokens(used) : `about ${tokens(used)}`;
    this.#count.textContent = count;
    if (!this.#maximum) return;
    const share = Math.min(100, (100 * used) / this.#maximum);
    this.#bar.querySelector(".used").style.inlineSize = `${share}%`;
    this.#bar.classList.toggle("short", used < this.#minimum);
    this.#bar.setAttribute("aria-valuenow", Math.min(used, this.#maximum));
    const minimum = this.#minimum ? `, at least ${number(this.#minimum)}` : "";
    this.#bar.setAttribute("aria-valuetext", `${count}${minimum}, at most ${number(this.#maximum)}`);
  }
}
