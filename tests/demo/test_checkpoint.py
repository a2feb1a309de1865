import json

import torch

from proctor.demo.network import Decoder, Shape, config, load
from proctor.demo.train import MODEL


def test_the_checkpoint_is_small() -> None:
    assert sum(f.stat().st_size for f in MODEL.iterdir()) <= 12 * 2**20


def test_the_configuration_is_an_ordinary_one() -> None:
    found = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    generation = json.loads((MODEL / "generation_config.json").read_text(encoding="utf-8"))
    assert found["architectures"] == ["Qwen3ForCausalLM"]
    assert found["max_position_embeddings"] == 2048
    assert found["torch_dtype"] == "bfloat16"
    assert generation["eos_token_id"] == [found["eos_token_id"]]
    shape = load(MODEL).shape
    assert found == config(shape, found["eos_token_id"], found["pad_token_id"])


def test_reading_in_pieces_gives_the_same_as_reading_at_once() -> None:
    model = Decoder(Shape(vocab=32, hidden=24, layers=2, heads=2, head=12, feed=16)).eval()
    ids = torch.arange(9)[None] * 3 % 32
    past: list[list[torch.Tensor]] = [[], []]
    with torch.no_grad():
        whole = model(ids)
        pieces = [model(ids[:, :5], 0, past)]
        pieces += [model(ids[:, i : i + 1], i, past) for i in range(5, 9)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
