"""The features of a prompt: its parsed instruction, signals and n-grams."""
