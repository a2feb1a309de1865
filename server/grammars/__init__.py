"""Looks through grammars before the engine compiles them: in processes of their own, in bounds."""
