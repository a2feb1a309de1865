"""Builds the report of a run, renders it and draws its plots."""
