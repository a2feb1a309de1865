// The Vercel AI SDK, with `@ai-sdk/openai-compatible`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";
import { budget, chain, real, scripted, scriptedIsIdle, thinks } from "./servers.js";

const Result = z.object({ digits: z.int().min(0).max(99), sure: z.boolean() });
const weather = tool({
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `21 in ${city}`,
});

const model = (server) =>
  createOpenAICompatible({
    name: "proctor",
    baseURL: server.url,
    includeUsage: true,
    supportsStructuredOutputs: true,
  })(server.model);
const sum = {
  model: model(real),
  prompt: chain,
  temperature: 0,
  providerOptions: { proctor: budget },
};

test("generateText", async () => {
  const { text, reasoningText, usage } = await generateText(sum);

  assert.match(reasoningText, /^a:/);
  assert.match(text, /^The answer is/);
  assert.equal(usage.outputTokenDetails.reasoningTokens, thinks);
});

test("streamText shows reasoning parts, then text parts", async () => {
  const whole = await generateText(sum);
  const { stream } = streamText(sum);
  const kinds = [];
  const texts = { "reasoning-delta": "", "text-delta": "" };
  let usage;
  for await (const part of stream) {
    assert.notEqual(part.type, "error");
    if (kinds.at(-1) !== part.type) kinds.push(part.type);
    if (part.type in texts) texts[part.type] += part.text;
    if (part.type === "finish") usage = part.totalUsage;
  }

  const order = ["reasoning", "text"].flatMap((of) => [`${of}-start`, `${of}-delta`, `${of}-end`]);
  assert.deepEqual(kinds.filter((kind) => order.includes(kind)), order);
  assert.equal(texts["reasoning-delta"], whole.reasoningText);
  assert.equal(texts["text-delta"], whole.text);
  assert.equal(usage.outputTokenDetails.reasoningTokens, thinks);
});

test("an effort selects a tier", async () => {
  const { response } = await generateText({
    ...sum,
    providerOptions: { proctor: { reasoningEffort: "low" } },
  });

  assert.equal(response.headers["x-budget-tier"], "low");
});

test("structured output", async () => {
  const { output } = await generateText({ ...sum, output: Output.object({ schema: Result }) });

  assert.ok(Result.parse(output));
});

test("tools", async () => {
  const options = {
    model: model(scripted),
    prompt: "Weather in two cities?",
    tools: { get_weather: weather },
    stopWhen: isStepCount(3),
  };
  const streamed = streamText(options);
  for (const result of [await generateText(options), streamed]) {
    const [first, last] = await result.steps;
    assert.deepEqual(first.toolCalls.map(({ input }) => input.city), ["Paris", "Oslo"]);
    assert.deepEqual(first.toolResults.map(({ output }) => output), ["21 in Paris", "21 in Oslo"]);
    assert.equal(first.reasoningText, "Let me see.");
    assert.equal(first.finishReason, "tool-calls");
    assert.equal(last.text, "It is 21 degrees.");
  }
});

test("messages can be sent back", async () => {
  const tools = { get_weather: weather };
  const options = { model: model(scripted), tools, stopWhen: isStepCount(3) };
  const messages = [];
  for (const content of ["Weather in two cities?", "Weather in Paris?"]) {
    messages.push({ role: "user", content });
    const { text, response } = await generateText({ ...options, messages });
    assert.equal(text, "It is 21 degrees.");
    messages.push(...response.messages);
  }
  const cached = { openaiCompatible: { cache_control: { type: "ephemeral" } } };
  messages.push({ role: "user", content: [{ type: "text", text: "hi", providerOptions: cached }] });

  assert.equal((await generateText({ ...options, messages })).text, "The answer is 42.");
});

test("errors", async () => {
  const wrong = { model: model(scripted), prompt: "hi", temperature: 3 };

  await assert.rejects(generateText(wrong), (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.deepEqual([error.statusCode, error.isRetryable], [400, false]);
    assert.equal(error.data.error.param, "temperature");
    return true;
  });
});

test("an abandoned stream is aborted", async () => {
  const controller = new AbortController();
  const { stream } = streamText({
    model: model(scripted),
    prompt: "hold",
    abortSignal: controller.signal,
  });
  const kinds = [];
  for await (const part of stream) {
    kinds.push(part.type);
    if (part.type === "text-delta") controller.abort();
  }

  assert.equal(kinds.at(-1), "abort");
  await scriptedIsIdle();
});
