// The Vercel AI SDK, with `@ai-sdk/openai` and its default, the Responses API.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";
import { chain, real, scripted, scriptedIsIdle } from "./servers.js";

const Result = z.object({ digits: z.int().min(0).max(99), sure: z.boolean() });
const weather = tool({
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `21 in ${city}`,
});

const model = (server) => createOpenAI({ baseURL: server.url, apiKey: "none" })(server.model);
const openai = {
  forceReasoning: true, // it does not know that the model thinks
  reasoningEffort: "low",
  reasoningSummary: "auto",
  store: false, // or else it sends references to earlier items, instead of the items
};
const sum = { model: model(real), prompt: chain, providerOptions: { openai } };

test("generateText", async () => {
  const { text, reasoningText, usage, response } = await generateText(sum);

  assert.match(reasoningText, /^a:/);
  assert.ok(text);
  assert.ok(usage.outputTokenDetails.reasoningTokens > 0);
  assert.equal(response.headers["x-budget-tier"], "low");
});

test("streamText shows reasoning parts, then text parts", async () => {
  const { stream } = streamText(sum);
  const kinds = [];
  for await (const part of stream) {
    assert.notEqual(part.type, "error");
    if (kinds.at(-1) !== part.type) kinds.push(part.type);
  }

  const order = ["reasoning", "text"].flatMap((of) => [`${of}-start`, `${of}-delta`, `${of}-end`]);
  assert.deepEqual(kinds.filter((kind) => order.includes(kind)), order);
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
    providerOptions: { openai },
  };
  const streamed = streamText(options);
  for (const result of [await generateText(options), streamed]) {
    const [first, last] = await result.steps;
    assert.deepEqual(first.toolCalls.map(({ input }) => input.city), ["Paris", "Oslo"]);
    assert.equal(first.reasoningText, "Let me see.");
    assert.equal(first.finishReason, "tool-calls");
    assert.equal(last.text, "It is 21 degrees.");
  }
});

test("errors", async () => {
  const wrong = { model: model({ ...scripted, model: "another" }), prompt: "hi", maxRetries: 0 };

  await assert.rejects(generateText(wrong), (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 404);
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
