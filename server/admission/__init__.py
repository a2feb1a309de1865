"""Admission control: checks requests, resolves their budgets and makes their jobs."""
