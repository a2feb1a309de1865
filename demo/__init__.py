"""The demo model: a tiny reasoning model with its domain, its trainer and its weights."""
