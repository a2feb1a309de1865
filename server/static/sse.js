/**
 * Reads server-sent events, as {name, data}; comments are passed over.
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
        const event = readEvent(block);
        if (event.data) yield event;
      }
    }
  } finally {
    if (!over) reader.cancel().catch(() => {}); // it may have failed already
  }
}

function readEvent(block) {
  const event = { name: "", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) event.name = line.slice(7);
    if (line.startsWith("data: ")) event.data += line.slice(6);
  }
  return event;
}
