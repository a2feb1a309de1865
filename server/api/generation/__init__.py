"""The parts that all generation endpoints share."""
