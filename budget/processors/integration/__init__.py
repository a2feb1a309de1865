"""How the processors are installed in vLLM, and called from its frontend."""
