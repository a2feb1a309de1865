"""Paired benchmarks, load tests and abuse tests."""
