"""Several gateway processes behind one port: `proctor serve --workers`."""
