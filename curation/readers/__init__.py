"""Reads data sets: from files to records, and from records of many shapes to rows."""
