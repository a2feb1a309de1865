import { Failure, getJson, useKey } from "./api.js";
import { chatBody, conversation } from "./request.js";
import { Run } from "./run.js";
import { Settings } from "./settings.js";
import { RunView, textElement } from "./view.js";
import { describeBudget, explain, PAGE_FAILED } from "./words.js";

const POLL_MS = 2000;

const find = (selector) => document.querySelector(selector);
const prompt = find("#prompt");
const narrow = matchMedia("(max-width: 56rem)");

let model = "";
let settings = null;
let turns = [];
let running = [];

async function start() {
  const [tiers, page] = await Promise.all([getJson("v1/tiers"), getJson("page.json")]);
  settings = new Settings(tiers.data, tiers.default_tier, page.remembers);
  find("#key").hidden = !page.asks_for_keys;
  find("#examples").append(...page.examples.map(exampleButton));
  await loadModel();
}

/** Show the name of the model; polls while the model is loading. */
async function loadModel() {
  try {
    model = (await getJson("v1/models")).data[0].id;
    find("#model").textContent = model;
    find("#notice").textContent = "";
    find("#send").disabled = false;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    find("#notice").textContent = explain(error);
    setTimeout(loadModel, POLL_MS);
  }
}

function exampleButton(text) {
  const button = textElement("button", text);
  button.type = "button";
  button.addEventListener("click", () => {
    prompt.value = text;
    prompt.focus();
  });
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function send() {
  const text = prompt.value.trim();
  if (!text || running.length || !model) return;
  prompt.value = "";
  find("#welcome").hidden = true;
  find("#new-chat").hidden = false;
  const turn = { prompt: text, runs: [] };
  const element = addTurn(text);
  const previous = settings.remembers ? turns : [];
  turns = [...turns, turn];
  const runs = settings.budgets.map((budget, side) => {
    const { messages, leftOut } = conversation(previous, side, text);
    return { budget, body: chatBody(model, messages, budget, settings.sampling), leftOut };
  });
  element.querySelector(".runs").dataset.count = runs.length;
  for (const [side, request] of runs.entries()) run(turn, side, element, request);
  element.scrollIntoView({ block: "start" });
}

function addTurn(text) {
  const copy = find("#turn-template").content.cloneNode(true);
  const element = copy.querySelector(".turn");
  element.querySelector(".prompt").textContent = text;
  find("#turns").append(element);
  return element;
}

/** Run one side of a turn, in place of its previous run if it is retried. */
async function run(turn, side, element, request) {
  const container = element.querySelector(".runs");
  const prefix = container.dataset.count > 1 ? `${"AB"[side]}: ` : "";
  const view = new RunView(prefix + describeBudget(request.budget));
  const previous = container.children[side];
  if (previous) previous.replaceWith(view.element);
  else container.append(view.element);
  const current = new Run(request.body, view, request.leftOut);
  turn.runs[side] = current;
  setRunning([...running, current]);
  await current.start(() => {
    run(turn, side, element, request);
    prompt.focus();
  });
  setRunning(running.filter((other) => other !== current));
}

function setRunning(runs) {
  running = runs;
  find("#send").hidden = running.length > 0;
  find("#stop").hidden = running.length === 0;
}

function stop() {
  for (const each of running) each.stop();
}

function newChat() {
  stop();
  turns = [];
  find("#turns").replaceChildren();
  find("#welcome").hidden = false;
  find("#new-chat").hidden = true;
  prompt.focus();
}

find("#composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
find("#stop").addEventListener("click", () => {
  stop();
  prompt.focus();
});
find("#key input").addEventListener("input", ({ target }) => useKey(target.value));
find("#new-chat").addEventListener("click", newChat);
find("#settings").open = !narrow.matches;
narrow.addEventListener("change", () => {
  find("#settings").open = !narrow.matches;
});
find("#send").disabled = true;
start().catch((error) => {
  find("#notice").textContent = error instanceof Failure ? explain(error) : PAGE_FAILED;
  throw error;
});
