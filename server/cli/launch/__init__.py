"""The command `proctor launch`: runs a coding agent on a server, as one session."""
