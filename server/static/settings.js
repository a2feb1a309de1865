import { describeBudget, number } from "./words.js";

const STEPS = 100;
const FALLBACK_TOP = 4096;

/** The controls: one budget or two, and sampling. */
export class Settings {
  #form = document.querySelector("#settings-form");
  #summary = document.querySelector("#settings-summary");
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

  /** Whether prompts are sent with the previous messages. */
  get remembers() {
    return this.#form.elements.remembers.checked;
  }

  /** The budgets of the next prompt: one, or two to compare. */
  get budgets() {
    return this.#budgets.slice(0, this.compares ? 2 : 1).map((controls) => controls.read());
  }

  /** Temperature and seed, if they are set. */
  get sampling() {
    const { temperature, seed } = this.#form.elements;
    return withoutNulls({ temperature: amount(temperature), seed: amount(seed) });
  }

  #show() {
    const [first, second] = this.#budgets;
    first.element.querySelector("legend").classList.toggle("visually-hidden", !this.compares);
    second.element.hidden = !this.compares;
    this.#summary.textContent = this.budgets.map(describeBudget).join(" / ");
    for (const controls of this.#budgets) controls.show();
  }
}

class BudgetControls {
  #tiers;
  #top;

  constructor(mark, tiers, chosen) {
    this.#tiers = tiers;
    this.#top = Math.max(...tiers.map(({ max_tokens: maximum }) => maximum ?? 0)) || FALLBACK_TOP;
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

  /** Show the values of the tier in fields that are empty. */
  show() {
    const { min_tokens: minimum, max_tokens: maximum, continuations } = this.#tier;
    this.#showAmount("minimum", minimum, 0);
    this.#showAmount("maximum", maximum, this.#top);
    this.#field("continuations").placeholder = continuations ?? "auto";
  }

  #showAmount(name, tierValue, fallback) {
    const field = this.#field(name);
    const slider = this.element.querySelector(`[data-name=${name}] [type=range]`);
    const value = amount(field) ?? tierValue ?? fallback;
    const tokens = value < 0 ? this.#top : value;
    field.placeholder = tierValue === null ? "auto" : tierValue < 0 ? "no maximum" : tierValue;
    slider.classList.toggle("open", field.value === "");
    slider.value = Math.round(STEPS * Math.sqrt(Math.min(1, tokens / this.#top)));
    slider.setAttribute("aria-valuetext", value < 0 ? "no maximum" : `${number(value)} tokens`);
  }

  /** The amount at a step of a slider, with finer steps for small budgets, to two digits. */
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

/** The number in a field, or null if it is empty. */
function amount(field) {
  return Number.isNaN(field.valueAsNumber) ? null : field.valueAsNumber;
}

/** An object without the fields that are null. */
export function withoutNulls(fields) {
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
