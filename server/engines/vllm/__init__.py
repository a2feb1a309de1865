"""vLLM embedded in the server's process."""
