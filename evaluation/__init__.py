"""Measures a running server over HTTP: what thinking is worth, and what it costs."""
