"""Predicts what each tier would give for a prompt, and chooses the one that pays.

The classifier says how hard a prompt looks. An outcome model, learned from one server's own
answers, says how likely each tier answers it rightly and how many tokens it thinks.
"""
