/**
 * Yield the data of server-sent events, without their names and comments.
 * Lines must end with \n, as Proctor sends them.
 *
 * @param {ReadableStream<Uint8Array>} bytes
 */
export async function* readEvents(bytes) {
  const reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let done = false;
  try {
    for (;;) {
      const result = await reader.read();
      done = result.done;
      if (done) return;
      const blocks = (text + result.value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const data = readData(block);
        if (data) yield data;
      }
    }
  } finally {
    if (!done) reader.cancel().catch(() => {}); // the stream may have failed already
  }
}

function readData(block) {
  const lines = block.split("\n").filter((line) => line.startsWith("data: "));
  return lines.map((line) => line.slice(6)).join("");
}
