"""Measure what a learned router saves: `python -m bench.outcomes`."""
