"""Sampling in the processor, from the distribution that vLLM would sample from."""
