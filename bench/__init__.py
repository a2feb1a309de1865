"""Paired benchmarks against peers."""
