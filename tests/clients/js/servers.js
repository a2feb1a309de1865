// The servers that `tests/clients/test_isolated_clients.py` starts, from the environment.

export const chain =
  "Start with 73, add 9, subtract 2, times 4, add 7. What are the last two digits?";
export const thinks = 40;
export const budget = { max_thinking_tokens: thinks, thinking: { landing: "hard" } };

/** The real engine on the demo model. */
export const real = { url: `${process.env.REAL_URL}/v1`, model: "proctor-demo" };

/** An engine that follows tests/clients/scripted_servers.py. */
export const scripted = { url: `${process.env.SCRIPTED_URL}/v1`, model: "scripted" };

const serversAt = (urls) => urls.split(" ").map((url) => ({ url: `${url}/v1`, model: "fake" }));

/** The queue is full at the first request, and empty at the second. */
export const busy = serversAt(process.env.BUSY_URLS);

/** Still loading at the first request, ready at the second. */
export const loading = serversAt(process.env.LOADING_URLS);

/** Wait until the scripted server has no requests; a blocked one ends only when it is aborted. */
export async function scriptedIsIdle() {
  for (;;) {
    const metrics = await (await fetch(`${process.env.SCRIPTED_URL}/metrics`)).text();
    if (/^proctor_in_flight 0(\.0)?$/m.test(metrics)) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
