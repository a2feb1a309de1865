"""Sorts prompts into budget tiers. Nothing here yet: the next milestone builds it."""
