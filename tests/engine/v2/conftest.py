"""Gateways with speculative decoding, named by the tests that use them."""

from collections.abc import Iterator

import pytest

from tests.engine.gateway import Gateway
from tests.engine.v2.drafts import running_speculative_gateway


@pytest.fixture(scope="module")
def draft_gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """The gateway of a name (see `running_speculative_gateway`), given as an indirect parameter."""
    folder = tmp_path_factory.getbasetemp() / "shorter"
    with running_speculative_gateway(request.param, folder) as gateway:
        yield gateway
