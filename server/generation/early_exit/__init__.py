"""Ends thinking early when probes find its answer settled."""
