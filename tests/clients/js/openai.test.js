// The OpenAI SDK for JavaScript.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { budget, busy, chain, loading, real, scripted, scriptedIsIdle, thinks } from "./servers.js";

const Result = z.object({ digits: z.int().min(0).max(99), sure: z.boolean() });
const Add = z.object({ a: z.int(), b: z.int() });
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    parse: JSON.parse,
    function: ({ city }) => `21 in ${city}`,
  },
};

const sdk = (server, options) =>
  new OpenAI({ baseURL: server.url, apiKey: "none", ...options }).chat.completions;
const request = (server, content, fields) => ({
  model: server.model,
  messages: [{ role: "user", content }],
  temperature: 0,
  ...fields,
});
const sum = (fields) => request(real, chain, { ...budget, ...fields });
const withUsage = { stream_options: { include_usage: true } };

function assertComplete({ choices: [choice], usage }) {
  assert.match(choice.message.content, /^The answer is/);
  assert.equal(choice.finish_reason, "stop");
  assert.equal(choice.thinking.tokens, thinks);
  assert.equal(usage.completion_tokens_details.reasoning_tokens, thinks);
}

test("create", async () => {
  const completion = await sdk(real).create(sum());

  assertComplete(completion);
  assert.match(completion.choices[0].message.reasoning_content, /^a:/);
});

test("a stream equals the complete answer", async () => {
  const { message } = (await sdk(real).create(sum())).choices[0];
  let thinking = "";
  let answer = "";
  let last;
  for await (const chunk of await sdk(real).create(sum({ stream: true, ...withUsage }))) {
    thinking += chunk.choices[0]?.delta.reasoning_content ?? "";
    answer += chunk.choices[0]?.delta.content ?? "";
    last = chunk;
  }

  assert.equal(thinking, message.reasoning_content);
  assert.equal(answer, message.content);
  assert.equal(last.usage.completion_tokens_details.reasoning_tokens, thinks);
});

test("the accumulator equals the complete answer", async () => {
  const { message } = (await sdk(real).create(sum())).choices[0];
  let received = "";
  // The accumulator concatenates only OpenAI's own fields, and keeps the last delta of others.
  let thinking = "";
  const stream = sdk(real)
    .stream(sum(withUsage))
    .on("content", (delta) => (received += delta))
    .on("chunk", ({ choices }) => (thinking += choices[0]?.delta.reasoning_content ?? ""));

  assertComplete(await stream.finalChatCompletion());
  assert.equal(await stream.finalContent(), message.content);
  assert.equal(received, message.content);
  assert.equal(thinking, message.reasoning_content);
});

test("parse", async () => {
  const structured = sum({ response_format: zodResponseFormat(Result, "result") });
  const whole = await sdk(real).parse(structured);
  const streamed = await sdk(real).stream(structured).finalChatCompletion();

  assert.ok(Result.parse(whole.choices[0].message.parsed));
  assert.deepEqual(streamed.choices[0].message.parsed, whole.choices[0].message.parsed);
});

test("tools that must be called", async () => {
  const tools = [zodFunction({ name: "add", parameters: Add })];
  for (const choice of ["required", { type: "function", function: { name: "add" } }]) {
    const forced = sum({ tools, tool_choice: choice, parallel_tool_calls: false });
    const whole = (await sdk(real).parse(forced)).choices[0];
    const streamed = (await sdk(real).stream(forced).finalChatCompletion()).choices[0];

    const [call] = whole.message.tool_calls;
    assert.ok(Add.parse(call.function.parsed_arguments));
    assert.deepEqual(
      streamed.message.tool_calls[0].function.parsed_arguments,
      call.function.parsed_arguments,
    );
  }
});

test("runTools runs a tool loop", async () => {
  const question = request(scripted, "Weather in two cities?", { tools: [weather] });
  for (const runner of [
    sdk(scripted).runTools(question),
    sdk(scripted).runTools({ ...question, stream: true }),
  ]) {
    assert.equal(await runner.finalContent(), "It is 21 degrees.");
    const results = runner.messages.filter(({ role }) => role === "tool").map((m) => m.content);
    assert.deepEqual(results, ["21 in Paris", "21 in Oslo"]);
  }
});

test("messages of helpers can be sent back", async () => {
  const parameters = z.object({ city: z.string() });
  const tools = [zodFunction({ name: "get_weather", parameters })];
  const helpers = {
    create: (body) => sdk(scripted).create(body),
    parse: (body) => sdk(scripted).parse(body),
    stream: (body) => sdk(scripted).stream(body).finalChatCompletion(),
  };
  for (const [name, helper] of Object.entries(helpers)) {
    const messages = [];
    const ask = async () => {
      const { choices } = await helper({ model: scripted.model, messages, tools });
      messages.push(choices[0].message);
      return choices[0].message;
    };
    for (const content of ["Weather in two cities?", "Weather in Paris?"]) {
      messages.push({ role: "user", content });
      const { tool_calls: calls } = await ask();
      if (name !== "create") assert.ok(parameters.parse(calls[0].function.parsed_arguments));
      messages.push(...calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content: "21" })));
      assert.equal((await ask()).content, "It is 21 degrees.");
    }
  }
});

test("a parsed answer can be sent back", async () => {
  const Answer = z.object({ degrees: z.int() });
  const messages = [{ role: "user", content: "As JSON, please." }];
  for (let turn = 0; turn < 2; turn += 1) {
    const structured = { response_format: zodResponseFormat(Answer, "answer") };
    const body = { model: scripted.model, messages, ...structured };
    const { choices } = await sdk(scripted).parse(body);
    assert.deepEqual(choices[0].message.parsed, { degrees: 21 });
    messages.push(choices[0].message, { role: "user", content: "As JSON, again." });
  }
});

test("error classes", async () => {
  const once = sdk(scripted, { maxRetries: 0 });
  const cases = [
    [{ temperature: 3 }, OpenAI.BadRequestError, { status: 400, param: "temperature" }],
    [{ budget: 1 }, OpenAI.BadRequestError, { status: 400, param: "budget" }],
    [{ model: "another" }, OpenAI.NotFoundError, { status: 404, code: "model_not_found" }],
    [
      { messages: [{ role: "user", content: "x".repeat(9000) }] },
      OpenAI.BadRequestError,
      { code: "context_length_exceeded", type: "invalid_request_error" },
    ],
  ];
  for (const [fields, errorClass, expected] of cases) {
    for (const stream of [false, true]) {
      await assert.rejects(once.create(request(scripted, "hi", { ...fields, stream })), (error) => {
        assert.ok(error instanceof errorClass);
        for (const [name, value] of Object.entries(expected)) assert.equal(error[name], value);
        assert.ok(error.requestID);
        return true;
      });
    }
  }
});

for (const [status, [first, second], errorClass] of [
  [429, busy, OpenAI.RateLimitError],
  [503, loading, OpenAI.InternalServerError],
]) {
  test(`a ${status} is retried`, async () => {
    const statuses = [];
    const recordingFetch = async (...options) => {
      const response = await fetch(...options);
      statuses.push(response.status);
      return response;
    };
    const completion = await sdk(first, { fetch: recordingFetch }).create(request(first, "hi"));

    assert.equal(completion.choices[0].message.content, "42");
    assert.deepEqual([statuses.at(0), statuses.at(-1)], [status, 200]);
    await assert.rejects(sdk(second, { maxRetries: 0 }).create(request(second, "hi")), errorClass);
  });
}

test("an abandoned stream is aborted", async () => {
  const stream = await sdk(scripted).create(request(scripted, "hold", { stream: true }));
  let received = "";
  for await (const chunk of stream) {
    received += chunk.choices[0]?.delta.content ?? "";
    if (received) break;
  }
  await scriptedIsIdle();

  const helper = sdk(scripted).stream(request(scripted, "hold"));
  helper.on("content", () => helper.abort());
  await assert.rejects(helper.done(), OpenAI.APIUserAbortError);
  await scriptedIsIdle();
});

test("a timeout aborts the request", async () => {
  const impatient = sdk(scripted, { timeout: 300, maxRetries: 0 });

  await assert.rejects(
    impatient.create(request(scripted, "hold")),
    OpenAI.APIConnectionTimeoutError,
  );
  await scriptedIsIdle();
});
