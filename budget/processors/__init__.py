"""Budgets in vLLM's running batch: the vectorized table and its logits processors."""
