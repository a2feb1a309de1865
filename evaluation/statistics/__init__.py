"""What a table of answers says: pure functions of samples, a small module for each question."""
