"""Options of the command line that conditions and prompts are made of."""
