"""Runs the command line: `python -m proctor.server.cli`."""

from proctor.server.cli.main import main

raise SystemExit(main())
