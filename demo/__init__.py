"""A tiny reasoning model that the project trains itself: its world, its trainer and its weights."""
