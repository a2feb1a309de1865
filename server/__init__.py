"""The gateway: an OpenAI-compatible HTTP server that budgets a model's thinking."""
