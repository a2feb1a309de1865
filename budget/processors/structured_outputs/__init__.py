"""Structured outputs beside a thinking budget: grammars whose masks are timed, in threads."""
