"""Settings of the ledger."""

from typing import Annotated

from pydantic import (
    Field,
    SecretStr,
)

from proctor.server.config.section import Section


class LedgerSettings(Section):
    """The ledger.

    Attributes:
        url: a database, `sqlite:///…` or `postgresql://…`; empty keeps no ledger.
        texts: whether to keep prompts, thinking and answers too.
        replay_hours: that an answer is kept whose request came with an
            `Idempotency-Key`; 0 refuses such requests.
    """

    url: SecretStr = SecretStr("")
    texts: bool = False
    replay_hours: Annotated[float, Field(ge=0, le=24 * 30)] = 24.0
