// The Vercel AI SDK, with `@ai-sdk/anthropic`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { APICallError, generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";
import { chain, real, scripted, scriptedIsIdle, thinks } from "./servers.js";

const Result = z.object({ size: z.enum(["small", "large"]), sure: z.boolean() });
const weather = tool({
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `21 in ${city}`,
});

const model = (server) => createAnthropic({ baseURL: server.url, apiKey: "none" })(server.model);
const thinking = { type: "enabled", budgetTokens: thinks };
const spent = ({ usage }) => usage.raw.output_tokens_details.thinking_tokens;
const sum = {
  model: model(real),
  prompt: chain,
  maxOutputTokens: 400,
  providerOptions: { anthropic: { thinking } },
};

test("generateText", async () => {
  const { text, reasoningText, steps } = await generateText(sum);

  assert.match(reasoningText, /^a:/);
  assert.ok(text);
  assert.ok(spent(steps[0]) > 0 && spent(steps[0]) <= thinks);
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
  const { output } = await generateText({
    ...sum,
    output: Output.object({ schema: Result }),
    providerOptions: { anthropic: { thinking, structuredOutputMode: "outputFormat" } },
  });

  assert.ok(Result.parse(output));
});

test("tools", async () => {
  const options = {
    model: model(scripted),
    prompt: "Weather in two cities?",
    tools: { get_weather: weather },
    stopWhen: isStepCount(3),
    providerOptions: { anthropic: { thinking } },
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

test("signatures are sent back, and the turn has one budget", async () => {
  const first = "Let me see.".length;
  const { steps } = await generateText({
    model: model(scripted),
    prompt: "Weather in Paris?",
    tools: { get_weather: weather },
    stopWhen: isStepCount(3),
    maxOutputTokens: 400,
    providerOptions: { anthropic: { thinking: { type: "enabled", budgetTokens: first + 4 } } },
  });

  const reasoning = steps[0].content.find(({ type }) => type === "reasoning");
  assert.ok(reasoning.providerMetadata.anthropic.signature);
  assert.equal(steps.length, 2);
  assert.equal(spent(steps[0]), first);
  assert.ok(spent(steps[1]) <= 4);
});

test("errors", async () => {
  const wrong = { model: model({ ...scripted, model: "another" }), prompt: "hi", maxRetries: 0 };

  await assert.rejects(generateText(wrong), (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 404);
    assert.equal(error.data.error.type, "not_found_error");
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
