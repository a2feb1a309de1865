// The servers under test, from the environment; `tests/clients/test_apart.py` starts them.

export const chain =
  "Start with 73, add 9, subtract 2, times 4, add 7. What are the last two digits?";
export const thinks = 40;
export const budget = { max_thinking_tokens: thinks, thinking: { landing: "hard" } };

/** The real engine on the demo model. */
export const real = { url: `${process.env.REAL_URL}/v1`, model: "proctor-demo" };

/** An engine that follows tests/clients/scripted.py. */
export const scripted = { url: `${process.env.SCRIPTED_URL}/v1`, model: "scripted" };

const each = (urls) => urls.split(" ").map((url) => ({ url: `${url}/v1`, model: "fake" }));

/** Full at the first request, idle at the second. */
export const busy = each(process.env.BUSY_URLS);

/** Still loading at the first request, ready at the second. */
export const loading = each(process.env.LOADING_URLS);

/** Wait until the scripted server runs nothing any more; it never ends what holds by itself. */
export async function scriptedIsIdle() {
  for (;;) {
    const metrics = await (await fetch(`${process.env.SCRIPTED_URL}/metrics`)).text();
    if (/^proctor_in_flight 0(\.0)?$/m.test(metrics)) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
