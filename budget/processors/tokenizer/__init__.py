"""What the processors need of a tokenizer: its vocabulary and its markers."""
