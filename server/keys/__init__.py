"""Keys: who is let in, and what each may do and take."""
