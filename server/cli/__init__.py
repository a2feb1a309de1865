"""The command line: `proctor serve`, `keys`, `launch` and others, and plug-ins."""
