"""Grammar checks before the engine compiles a grammar: bounded, in separate processes."""
