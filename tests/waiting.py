"""The timeout of tests."""

PATIENCE = 300
"""Timeout in seconds for anything a test waits for: it only catches hangs, and is far longer than
any step takes on an overloaded machine."""
