import json

import torch

from proctor.demo.network import Decoder, Shape, config, load
from proctor.demo.train import MODEL


def test_the_checkpoint_is_small() -> None:
    assert sum(f.stat().st_size for f in MODEL.iterdir()) <= 12 * 2**20


def test_the_configuration_is_that_of_a_qwen3_model() -> None:
    model_config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    generation = json.loads((MODEL / "generation_config.json").read_text(encoding="utf-8"))
    assert model_config["architectures"] == ["Qwen3ForCausalLM"]
    assert model_config["max_position_embeddings"] == 2048
    assert model_config["torch_dtype"] == "bfloat16"
    assert generation["eos_token_id"] == [model_config["eos_token_id"]]
    shape = load(MODEL).shape
    assert model_config == config(shape, model_config["eos_token_id"], model_config["pad_token_id"])


def test_decoding_with_a_key_value_cache_gives_the_same_logits() -> None:
    model = Decoder(Shape(vocab=32, hidden=24, layers=2, heads=2, head=12, feed=16)).eval()
    ids = torch.arange(9)[None] * 3 % 32
    cache: list[list[torch.Tensor]] = [[], []]
    with torch.no_grad():
        whole = model(ids)
        chunks = [model(ids[:, :5], 0, cache)]
        chunks += [model(ids[:, i : i + 1], i, cache) for i in range(5, 9)]
    torch.testing.assert_close(torch.cat(chunks, 1), whole)
