"""Selects training questions with traces: filters, deduplicates, measures, and samples them."""
