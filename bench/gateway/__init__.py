"""What the gateway itself costs: its engine follows a script, so that nothing else is measured."""
