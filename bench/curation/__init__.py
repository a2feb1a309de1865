"""A pool of questions that the curation is proved on: `python -m bench.curation`."""
