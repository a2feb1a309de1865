"""Measures accuracy and cost of a running server under several thinking budgets, over HTTP."""
