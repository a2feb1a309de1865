"""Audits a file of training rows: can a model learn from it to think under budgets?"""
