import { Meter } from "./meter.js";
import { STATUS } from "./words.js";

let views = 0;

/** The view of one run. The model's text is inserted as text nodes only. */
export class RunView {
  #thinking;
  #answer;
  #meter;

  constructor(title) {
    const copy = document.querySelector("#run-template").content.cloneNode(true);
    this.element = copy.querySelector(".run");
    this.#find("h2").textContent = title;
    this.element.setAttribute("aria-label", `Answer under ${title}`);
    this.#thinking = this.#find(".thought");
    this.#answer = this.#find(".answer-text");
    this.#meter = new Meter(this.#find(".thinking"));
    this.#makeToggle();
    for (const button of this.element.querySelectorAll(".copy")) {
      button.addEventListener("click", () => copyCode(button));
    }
    this.phase = "waiting";
  }

  /** The tier that the router chose. */
  set tier(name) {
    this.#find("h2").append(` (${name})`);
  }

  set phase(name) {
    this.element.dataset.phase = name;
    this.status = STATUS[name];
  }

  set status(text) {
    this.#find(".status").textContent = text;
  }

  set clock(text) {
    this.#find(".clock").textContent = text;
  }

  addThinking(text) {
    const pane = this.#thinking;
    const isAtEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
    pane.append(text);
    if (isAtEnd) pane.scrollTop = pane.scrollHeight;
  }

  addAnswer(text) {
    this.#answer.append(text);
  }

  limits(minimum, maximum) {
    this.#meter.limits(minimum, maximum);
  }

  used(tokens, exact) {
    this.#meter.show(tokens, exact);
  }

  /** Highlight text that the server inserted into the thinking; offsets are in code points. */
  mark(spans) {
    const points = [...this.#thinking.textContent];
    const parts = [];
    let position = 0;
    for (const { kind, start, end } of spans) {
      parts.push(points.slice(position, start).join(""));
      parts.push(forced(kind, points.slice(start, end).join("")));
      position = end;
    }
    const { scrollTop } = this.#thinking;
    this.#thinking.replaceChildren(...parts, points.slice(position).join(""));
    this.#thinking.scrollTop = scrollTop;
  }

  /** @param {[string, string][]} facts */
  showFacts(facts) {
    const list = this.#find(".facts");
    list.replaceChildren(
      ...facts.map(([name, value]) => {
        const group = document.createElement("div");
        group.append(textElement("dt", name), textElement("dd", value));
        return group;
      }),
    );
    list.hidden = facts.length === 0;
  }

  showCode(curl, python) {
    const [first, second] = this.element.querySelectorAll(".request pre");
    first.textContent = curl;
    second.textContent = python;
    this.#find(".request").hidden = false;
  }

  /** Show an error, and a button that retries after `wait` seconds. */
  fail(message, wait, retry) {
    this.phase = "failed";
    this.#find(".error").textContent = message;
    const button = this.#find(".retry");
    button.hidden = false;
    button.onclick = retry;
    countDown(button, wait ?? 0);
  }

  #find(selector) {
    return this.element.querySelector(selector);
  }

  #makeToggle() {
    const toggle = this.#find(".toggle");
    this.#thinking.id = `thought-${++views}`;
    toggle.setAttribute("aria-controls", this.#thinking.id);
    toggle.addEventListener("click", () => {
      this.#thinking.hidden = !this.#thinking.hidden;
      toggle.setAttribute("aria-expanded", String(!this.#thinking.hidden));
    });
  }
}

function forced(kind, text) {
  const mark = textElement("mark", text);
  mark.dataset.kind = kind;
  const name = kind === "wrap_up" ? "Wrap-up" : "Continuation";
  mark.title = `${name} inserted by the server`;
  return mark;
}

export function textElement(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

function countDown(button, left) {
  button.disabled = left > 0;
  button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
  if (left > 0) setTimeout(countDown, 1000, button, left - 1);
}

async function copyCode(button) {
  const code = button.closest("figure").querySelector("pre");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    // Without TLS, browsers do not offer the clipboard. Select the text, to be copied manually.
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
}
