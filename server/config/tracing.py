"""Settings of traces."""

from typing import Annotated

from pydantic import (
    Field,
)

from proctor.server.config.section import Section


class TracingSettings(Section):
    """Traces of requests, for OpenTelemetry.

    Attributes:
        endpoint: where to send them by OTLP over HTTP, without the `/v1/traces`
            that is added; empty is what `OTEL_EXPORTER_OTLP_ENDPOINT` says, or
            else nowhere.
    """

    endpoint: Annotated[str, Field(pattern="^(https?://.+)?$")] = ""
