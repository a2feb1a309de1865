"""The error of curation."""


class CurationError(ValueError):
    """A recipe, an input or a dependency does not allow the run; the message says what to do."""
