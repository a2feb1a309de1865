"""Generates several chains of thought for one answer, and lets them vote."""
