"""The gateway of the tests in this folder: over a replica, in a process of its own."""

from collections.abc import Iterator

import pytest

from tests.engine.gateway import Gateway
from tests.engine.replicas.process import Replica, gateway_over, running_replica


@pytest.fixture(scope="package")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A replica with the demo model."""
    with running_replica(tmp_path_factory.mktemp("replica")) as running:
        yield running


@pytest.fixture(scope="package")
def vllm_gateway(replica: Replica) -> Iterator[Gateway]:
    """A gateway over the replica, in place of the one over the embedded engine."""
    with gateway_over(replica) as gateway:
        yield gateway
