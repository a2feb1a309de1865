"""API keys: storage, authentication and limits."""
