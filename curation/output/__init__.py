"""Writes the chosen rows for training: as messages, or in a model's template and markers."""
