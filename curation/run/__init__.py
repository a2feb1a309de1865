"""Runs recipes: step by step, resumably, with a manifest of what was done."""
