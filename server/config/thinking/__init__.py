"""Settings of how thinking ends and how it is shown."""
