/**
 * Reads the data of server-sent events; their names, which a server may leave out, and comments
 * are passed over.
 * Lines end in \n alone, as Proctor writes them.
 *
 * @param {ReadableStream<Uint8Array>} bytes
 */
export async function* readEvents(bytes) {
  const reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let over = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      over = done;
      if (over) return;
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const data = readData(block);
        if (data) yield data;
      }
    }
  } finally {
    if (!over) reader.cancel().catch(() => {}); // it may have failed already
  }
}

function readData(block) {
  const lines = block.split("\n").filter((line) => line.startsWith("data: "));
  return lines.map((line) => line.slice(6)).join("");
}
