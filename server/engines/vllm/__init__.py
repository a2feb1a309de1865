"""vLLM in the server's own process."""
