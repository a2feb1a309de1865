"""How the chosen rows are written."""

from typing import Literal

from pydantic import Field

from proctor.curation.options import Options


class Output(Options):
    """How the chosen rows are written.

    Attributes:
        form: `messages` are OpenAI's, with `reasoning_content`; `template` is the prompt and the
            completion in the model's chat template and thinking markers.
        block_size: the tokens at which the training will cut rows. If a chosen row is longer,
            nothing is written.
    """

    form: Literal["messages", "template"] = "messages"
    block_size: int | None = Field(default=None, ge=1)

    @property
    def needs_model(self) -> bool:
        """Whether rows can only be written for a model."""
        return self.form == "template" or self.block_size is not None
