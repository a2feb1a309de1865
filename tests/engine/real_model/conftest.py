"""A gateway over the pretrained model, shared by the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.engine.gateway import TIERS, Gateway, running_gateway
from tests.engine.real_model.client import END, MODEL, START
from tests.requirements import require

ENGINE = {
    "max_model_len": 2048,
    "max_num_seqs": 16,
    "enforce_eager": True,
    "kv_cache_memory_bytes": 2**28,
}


# Not for the session: a second engine hides the metrics of the first as long as it runs.
@pytest.fixture(scope="package")
def real_gateway() -> Iterator[Gateway]:
    """The gateway, on a loopback port."""
    require(MODEL.exists(), "the pretrained model")
    with running_gateway(
        model=str(MODEL), thinking_start=START, thinking_end=END, engine=ENGINE, tiers=TIERS
    ) as gateway:
        yield gateway
