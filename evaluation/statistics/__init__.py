"""Statistics of answers: pure functions of samples."""
