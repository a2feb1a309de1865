import { Meter } from "./meter.js";
import { STATUS } from "./words.js";

let made = 0;

/** What is shown of one run. Text of the model goes in as text nodes only. */
export class RunView {
  #thought;
  #answer;
  #meter;

  constructor(title) {
    const copy = document.querySelector("#run-template").content.cloneNode(true);
    this.element = copy.querySelector(".run");
    this.#find("h2").textContent = title;
    this.element.setAttribute("aria-label", `Answer under ${title}`);
    this.#thought = this.#find(".thought");
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

  think(text) {
    const pane = this.#thought;
    const follows = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
    pane.append(text);
    if (follows) pane.scrollTop = pane.scrollHeight;
  }

  answer(text) {
    this.#answer.append(text);
  }

  limits(least, most) {
    this.#meter.limits(least, most);
  }

  used(tokens, exact) {
    this.#meter.show(tokens, exact);
  }

  /** Mark what the server put into the thinking; offsets count code points. */
  mark(spans) {
    const points = [...this.#thought.textContent];
    const parts = [];
    let at = 0;
    for (const { kind, start, end } of spans) {
      parts.push(points.slice(at, start).join(""), forced(kind, points.slice(start, end).join("")));
      at = end;
    }
    const { scrollTop } = this.#thought;
    this.#thought.replaceChildren(...parts, points.slice(at).join(""));
    this.#thought.scrollTop = scrollTop;
  }

  /** @param {[string, string][]} facts */
  tell(facts) {
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

  /** What went wrong; `wait` is how many seconds to let pass before another try. */
  fail(words, wait, retry) {
    this.phase = "failed";
    this.#find(".error").textContent = words;
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
    this.#thought.id = `thought-${++made}`;
    toggle.setAttribute("aria-controls", this.#thought.id);
    toggle.addEventListener("click", () => {
      this.#thought.hidden = !this.#thought.hidden;
      toggle.setAttribute("aria-expanded", String(!this.#thought.hidden));
    });
  }
}

function forced(kind, text) {
  const mark = textElement("mark", text);
  mark.dataset.kind = kind;
  mark.title = kind === "wrap_up" ? "Wrap-up, put in by the server" : "Continuation, put in by the server";
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
    // Browsers give pages without TLS no clipboard: the text is selected, to be copied by hand.
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
}
