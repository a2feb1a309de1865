import { number, tokens } from "./words.js";

/** Thinking tokens against the minimum and the cap. */
export class Meter {
  #bar;
  #count;
  #scale;
  #least = 0;
  #most = null;

  constructor(section) {
    this.#bar = section.querySelector(".meter");
    this.#count = section.querySelector(".count");
    this.#scale = section.querySelector(".scale");
  }

  /** What holds for this thinking, once it is known. */
  limits(least, most) {
    this.#least = least;
    this.#most = most;
    this.#bar.hidden = this.#scale.hidden = !most;
    const mark = this.#bar.querySelector(".least");
    mark.hidden = !least;
    mark.style.insetInlineStart = `${(100 * least) / most}%`;
    this.#scale.querySelector(".scale-least").textContent = least ? `at least ${number(least)}` : "";
    this.#scale.querySelector(".scale-most").textContent = `at most ${number(most)}`;
    this.#bar.setAttribute("aria-valuemax", most);
  }

  /** How far it is; what is counted in pieces of text is not exact. */
  show(used, exact) {
    const told = exact ? tokens(used) : `about ${tokens(used)}`;
    this.#count.textContent = told;
    if (!this.#most) return;
    this.#bar.querySelector(".used").style.inlineSize = `${Math.min(100, (100 * used) / this.#most)}%`;
    this.#bar.classList.toggle("short", used < this.#least);
    this.#bar.setAttribute("aria-valuenow", Math.min(used, this.#most));
    const least = this.#least ? `, at least ${number(this.#least)}` : "";
    this.#bar.setAttribute("aria-valuetext", `${told}${least}, at most ${number(this.#most)}`);
  }
}
