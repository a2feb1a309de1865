// The Vercel AI SDK: reasoning parts, then text parts.
//
//   npm install ai @ai-sdk/openai-compatible

import process from "node:process";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";

const proctor = createOpenAICompatible({
  name: "proctor",
  baseURL: process.env.OPENAI_BASE_URL ?? "http://127.0.0.1:8000/v1",
  apiKey: process.env.OPENAI_API_KEY ?? "unused",
  includeUsage: true,
});
const { stream } = streamText({
  model: proctor(process.env.MODEL ?? "proctor-demo"),
  prompt: "Start with 7, add 5, times 3, minus 4. What are the last two digits?",
  // Fields that the SDK does not know are sent under the provider's name.
  providerOptions: { proctor: { max_thinking_tokens: 64 } },
});
for await (const part of stream) {
  if (part.type === "reasoning-delta" || part.type === "text-delta") process.stdout.write(part.text);
  if (part.type === "reasoning-end" || part.type === "text-end") process.stdout.write("\n");
  if (part.type === "error") throw part.error;
  if (part.type === "finish") {
    console.log("thinking tokens:", part.totalUsage.outputTokenDetails.reasoningTokens);
  }
}
