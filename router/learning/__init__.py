"""Learns outcome models from answers, and judges them before they are used. NumPy only."""
