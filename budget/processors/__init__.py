"""Budgets inside vLLM's running batch: the tensor table and its adapters."""
