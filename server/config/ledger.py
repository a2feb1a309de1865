"""Settings of the ledger."""

from typing import Annotated

from pydantic import (
    Field,
    SecretStr,
)

from proctor.server.config.section import Section


class LedgerSettings(Section):
    """Settings of the ledger.

    Attributes:
        url: the URL of the database, `sqlite:///…` or `postgresql://…`; empty disables
            the ledger.
        texts: whether to also store prompts, thinking and answers.
        replay_hours: the time for which responses to requests with an
            `Idempotency-Key` are stored; 0 rejects such requests.
        response_hours: the time for which responses of `/v1/responses` are stored with their
            conversation, so that clients can continue, poll and resume them; 0 stores none.
    """

    url: SecretStr = SecretStr("")
    texts: bool = False
    replay_hours: Annotated[float, Field(ge=0, le=24 * 30)] = 24.0
    response_hours: Annotated[float, Field(ge=0, le=24 * 30)] = 24.0
