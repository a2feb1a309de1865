"""How long tests wait."""

PATIENCE = 300
"""Seconds after which something that must happen counts as not happening: a limit for what hangs,
and far more than a machine with too much to do takes over anything."""
