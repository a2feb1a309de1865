"""Settings of tracing."""

from typing import Annotated

from pydantic import (
    Field,
)

from proctor.server.config.section import Section


class TracingSettings(Section):
    """Settings of OpenTelemetry tracing.

    Attributes:
        endpoint: the URL of the OTLP/HTTP receiver, without `/v1/traces`, which is
            appended; defaults to `OTEL_EXPORTER_OTLP_ENDPOINT`, and without it, tracing
            is disabled.
    """

    endpoint: Annotated[str, Field(pattern="^(https?://.+)?$")] = ""
