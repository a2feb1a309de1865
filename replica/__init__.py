"""What runs beside vLLM on a replica: the endpoint plugin, and the arguments of `vllm serve`.

A replica is a stock `vllm serve` with Proctor's logits processor. Gateways on other machines
send it requests with budgets; see docs/guides/scale-out.md.
"""
