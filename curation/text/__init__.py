"""Properties of texts that stages judge by."""
