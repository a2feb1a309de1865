"""Settings of the playground at `/`."""

from typing import Annotated

from pydantic import (
    Field,
)

from proctor.server.config.section import Section


class Page(Section):
    """Settings of the playground at `/`.

    Attributes:
        examples: example prompts that suit the model.
        remembers: whether prompts are sent with the conversation so far, by default;
            users can change it on the page.
    """

    examples: tuple[Annotated[str, Field(min_length=1)], ...] = (
        "A bat and a ball cost 1.10 together. The bat costs 1.00 more than the ball. "
        "What does the ball cost?",
        "How many times does the letter r stand in “strawberry”?",
        "Three people need three minutes for three cakes. How long do nine people need for nine?",
        "Prove that the square root of 2 is not a fraction.",
    )
    remembers: bool = True
