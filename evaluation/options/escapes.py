r"""Line ends in options: shells pass `\n` within quotes as two characters."""

import re

_ESCAPED = re.compile(r"(\\?)\\n")


def unescape(text: str) -> str:
    r"""Return the text with `\n` as line ends, and `\\n` as a backslash and an n.

    Other backslashes stay as they are, since prompts contain LaTeX; there `\\nu` is written for
    `\nu`.
    """
    return _ESCAPED.sub(lambda found: r"\n" if found[1] else "\n", text)


def escape(text: str) -> str:
    """Return the text in one line, as `unescape` reads it."""
    return text.replace(r"\n", r"\\n").replace("\n", r"\n")
