import { describeBudget, number } from "./words.js";

const STEPS = 100;
const FALLBACK_TOP = 4096;

/** The controls: one budget or two, and how to sample. */
export class Settings {
  #form = document.querySelector("#settings-form");
  #told = document.querySelector("#settings-told");
  #budgets = [];

  /** @param {{name: string, min_tokens: number, max_tokens: number, continuations: number}[]} tiers */
  constructor(tiers, defaultTier, remembers) {
    const auto = { name: "auto", min_tokens: null, max_tokens: null, continuations: null };
    const chosen = tiers.some(({ name }) => name === defaultTier) ? defaultTier : "auto";
    this.#budgets = [
      new BudgetControls("A", [auto, ...tiers], chosen),
      new BudgetControls("B", [auto, ...tiers], tiers[0].name),
    ];
    this.#form.querySelector("#budgets").append(...this.#budgets.map(({ element }) => element));
    this.#form.elements.remembers.checked = remembers;
    this.#form.addEventListener("input", () => this.#show());
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#show();
  }

  get compares() {
    return this.#form.elements.compare.checked;
  }

  /** Whether a prompt goes with what was said before it. */
  get remembers() {
    return this.#form.elements.remembers.checked;
  }

  /** The budgets to run under: one, or two side by side. */
  get budgets() {
    return this.#budgets.slice(0, this.compares ? 2 : 1).map((controls) => controls.read());
  }

  /** Temperature and seed, where they are given. */
  get sampling() {
    const { temperature, seed } = this.#form.elements;
    return given({ temperature: amount(temperature), seed: amount(seed) });
  }

  #show() {
    const [first, second] = this.#budgets;
    first.element.querySelector("legend").classList.toggle("unseen", !this.compares);
    second.element.hidden = !this.compares;
    this.#told.textContent = this.budgets.map(describeBudget).join(" / ");
    for (const controls of this.#budgets) controls.show();
  }
}

class BudgetControls {
  #tiers;
  #top;

  constructor(mark, tiers, chosen) {
    this.#tiers = tiers;
    this.#top = Math.max(...tiers.map(({ max_tokens: most }) => most ?? 0)) || FALLBACK_TOP;
    const copy = document.querySelector("#budget-template").content.cloneNode(true);
    this.element = copy.querySelector("fieldset");
    this.element.querySelector("legend").textContent = `Budget ${mark}`;
    const radios = tiers.map(({ name }) => radio(`tier-${mark}`, name, name === chosen));
    this.element.querySelector(".tiers").append(...radios);
    for (const row of this.element.querySelectorAll(".amount")) {
      const [field, slider] = row.querySelectorAll("input");
      slider.max = STEPS;
      slider.addEventListener("input", () => {
        field.value = this.#amountAt(Number(slider.value));
      });
    }
  }

  read() {
    return {
      tier: this.#tier.name,
      minimum: amount(this.#field("minimum")),
      maximum: amount(this.#field("maximum")),
      continuations: amount(this.#field("continuations")),
    };
  }

  /** What is left open shows what the tier has there. */
  show() {
    const { min_tokens: least, max_tokens: most, continuations } = this.#tier;
    this.#showAmount("minimum", least, 0);
    this.#showAmount("maximum", most, this.#top);
    this.#field("continuations").placeholder = continuations ?? "auto";
  }

  #showAmount(name, ofTier, fallback) {
    const field = this.#field(name);
    const slider = this.element.querySelector(`[data-name=${name}] [type=range]`);
    const shown = amount(field) ?? ofTier ?? fallback;
    const tokens = shown < 0 ? this.#top : shown;
    field.placeholder = ofTier === null ? "auto" : ofTier < 0 ? "no cap" : ofTier;
    slider.classList.toggle("open", field.value === "");
    slider.value = Math.round(STEPS * Math.sqrt(Math.min(1, tokens / this.#top)));
    slider.setAttribute("aria-valuetext", shown < 0 ? "no cap" : `${number(shown)} tokens`);
  }

  /** Fine steps where budgets are small; two digits are enough anywhere. */
  #amountAt(step) {
    if (step === STEPS) return this.#top;
    return Number((this.#top * (step / STEPS) ** 2).toPrecision(2));
  }

  get #tier() {
    const { value } = this.element.querySelector(".tiers :checked");
    return this.#tiers.find(({ name }) => name === value);
  }

  #field(name) {
    return this.element.querySelector(`input[name=${name}]`);
  }
}

/** The number in a field, or null where there is none. */
function amount(field) {
  return Number.isNaN(field.valueAsNumber) ? null : field.valueAsNumber;
}

/** The fields of an object that are not null. */
export function given(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
}

function radio(group, value, checked) {
  const input = Object.assign(document.createElement("input"), {
    type: "radio",
    name: group,
    value,
    checked,
  });
  const label = document.createElement("label");
  label.append(input, value);
  return label;
}
