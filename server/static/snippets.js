/** The request as code that can be run unchanged. */

const STANDARD = ["model", "messages", "temperature", "seed", "stream", "stream_options"];

export function asCurl(base, body, keyed) {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", String.raw`'\''`);
  return [
    `curl --no-buffer ${base}/chat/completions \\`,
    "  --header 'Content-Type: application/json' \\",
    ...(keyed ? [`  --header "Authorization: Bearer $PROCTOR_KEY" \\`] : []),
    `  --data '${quoted}'`,
  ].join("\n");
}

export function asPython(base, body, keyed) {
  const fields = Object.entries(body);
  const standard = fields.filter(([name]) => STANDARD.includes(name));
  const extra = Object.fromEntries(fields.filter(([name]) => !STANDARD.includes(name)));
  const keywords = [...standard, ["extra_body", extra]];
  const lines = keywords.map(([name, value]) => `    ${name}=${literal(value, 1)},`);
  const key = keyed ? 'os.environ["PROCTOR_KEY"]' : '"unused"';
  return `${keyed ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url=${literal(base, 0)}, api_key=${key})
stream = client.chat.completions.create(
${lines.join("\n")}
)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.reasoning_content or choice.delta.content or "", end="", flush=True)
print()
`;
}

/** A JSON value as a Python literal. */
function literal(value, depth) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const isList = Array.isArray(value);
  const parts = isList
    ? value.map((item) => literal(item, depth + 1))
    : Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${literal(item, depth + 1)}`);
  const [open, close] = isList ? "[]" : "{}";
  const short = open + parts.join(", ") + close;
  if (short.length < 60 && !short.includes("\n")) return short;
  const indent = "    ".repeat(depth);
  return `${open}\n${parts.map((part) => `${indent}    ${part},\n`).join("")}${indent}${close}`;
}
