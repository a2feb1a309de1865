"""Settings of the page at `/`."""

from typing import Annotated

from pydantic import (
    Field,
)

from proctor.server.config.section import Section


class Page(Section):
    """The page at `/`.

    Attributes:
        examples: prompts to try, such as suit the model.
        remembers: whether a prompt goes with what was said before it, until
            that is switched over on the page.
    """

    examples: tuple[Annotated[str, Field(min_length=1)], ...] = (
        "A bat and a ball cost 1.10 together. The bat costs 1.00 more than the ball. "
        "What does the ball cost?",
        "How many times does the letter r stand in “strawberry”?",
        "Three people need three minutes for three cakes. How long do nine people need for nine?",
        "Prove that the square root of 2 is not a fraction.",
    )
    remembers: bool = True
