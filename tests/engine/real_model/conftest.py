"""A gateway over the pretrained model, shared by the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.gateway import TIERS, Gateway, running_gateway
from tests.engine.real_model.client import END, MODEL, START
from tests.requirements import require

ENGINE = {
    "max_model_len": 2048,
    "max_num_seqs": 16,
    "enforce_eager": True,
    "kv_cache_memory_bytes": 2**29,
    # In bfloat16 the results of a step depend on the batch, and so would greedy texts.
    "dtype": "float32",
}

TEMPLATE = "chat_template.jinja"
TOOLS = """\
{% if tools %}<|im_start|>system
Tools: {{ tools | tojson }}<|im_end|>
{% endif %}"""


@pytest.fixture(scope="package")
def model_with_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, with a chat template that renders tools."""
    require(MODEL.exists(), "the pretrained model")
    folder = tmp_path_factory.mktemp("model")
    for path in MODEL.iterdir():
        (folder / path.name).symlink_to(path)
    template = (MODEL / TEMPLATE).read_text()
    (folder / TEMPLATE).unlink()
    (folder / TEMPLATE).write_text(TOOLS + template)
    return folder


# Not for the session: a second engine hides the metrics of the first as long as it runs.
@pytest.fixture(scope="package")
def real_gateway(model_with_tools: Path) -> Iterator[Gateway]:
    """The gateway, on a loopback port."""
    with running_gateway(
        model=str(model_with_tools),
        thinking_start=START,
        thinking_end=END,
        tool_call_parser="hermes",
        engine=ENGINE,
        tiers=TIERS,
    ) as gateway:
        yield gateway
