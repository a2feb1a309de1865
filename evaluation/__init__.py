"""Measures a running server over HTTP: what thinking is worth, and what it costs.

So far the statistics stand here; what asks a server, and what draws the report, does not yet.
"""
