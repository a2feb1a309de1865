"""Simulate how requests are balanced over replicas: `python -m bench.balance`."""
