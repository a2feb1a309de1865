"""Grammar checks before the engine compiles them: bounded, in processes of their own."""
