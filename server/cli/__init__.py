"""The command line: `proctor serve`, `route`, `router`, `keys`, `ledger`, and plug-ins."""
