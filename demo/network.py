"""The network: a small Qwen3 decoder in plain PyTorch, and its Hugging Face checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CONTEXT = 2048


@dataclass(frozen=True)
class Shape:
    """The sizes of the network; widths in features, vocabulary in tokens."""

    vocab: int
    hidden: int = 192
    layers: int = 3
    heads: int = 6
    head: int = 32
    feed: int = 512
    theta: float = 10000.0


class Attention(nn.Module):
    """Causal attention with normalized queries and keys, and rotary position embeddings."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.heads, self.head = s.heads, s.head
        width = s.heads * s.head
        self.q_proj = nn.Linear(s.hidden, width, bias=False)
        self.k_proj = nn.Linear(s.hidden, width, bias=False)
        self.v_proj = nn.Linear(s.hidden, width, bias=False)
        self.o_proj = nn.Linear(width, s.hidden, bias=False)
        self.q_norm = nn.RMSNorm(s.head, eps=1e-6)
        self.k_norm = nn.RMSNorm(s.head, eps=1e-6)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: list[Tensor] | None) -> Tensor:
        """Return (batch, time, hidden) from x of the same shape.

        `past` is the KV cache, updated in place: [keys, values], each of shape
        (batch, heads, cached time, head).
        """
        b, t, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(b, t, self.heads, self.head)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(b, t, self.heads, self.head)).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.heads, self.head).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            if past:
                k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
            past[:] = [k, v]
            y = F.scaled_dot_product_attention(q, k, v, is_causal=t == k.shape[2])
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary position embeddings to (…, time, head), halves paired as in Qwen3."""
    left, right = x.chunk(2, -1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), -1)


class Feed(nn.Module):
    """The gated feed-forward network of a layer."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden, s.feed, bias=False)
        self.up_proj = nn.Linear(s.hidden, s.feed, bias=False)
        self.down_proj = nn.Linear(s.feed, s.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """A layer: attention and feed-forward, each on the normalized residual stream."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(s.hidden, eps=1e-6)
        self.self_attn = Attention(s)
        self.post_attention_layernorm = nn.RMSNorm(s.hidden, eps=1e-6)
        self.mlp = Feed(s)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: list[Tensor] | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, past)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """The decoder; its parameter names are those of `Qwen3ForCausalLM` without `model.`."""

    cos: Tensor
    sin: Tensor

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.shape = s
        self.embed_tokens = nn.Embedding(s.vocab, s.hidden)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.norm = nn.RMSNorm(s.hidden, eps=1e-6)
        turns = s.theta ** (-torch.arange(0, s.head, 2) / s.head)
        angles = torch.arange(CONTEXT)[:, None] * turns
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(weight)

    def forward(
        self, ids: Tensor, start: int = 0, past: list[list[Tensor]] | None = None
    ) -> Tensor:
        """Return logits (batch, time, vocab) from token ids (batch, time)."""
        end = start + ids.shape[1]
        cos, sin = self.cos[start:end], self.sin[start:end]
        x = self.embed_tokens(ids)
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, None if past is None else past[index])
        return F.linear(self.norm(x), self.embed_tokens.weight)


def config(s: Shape, end_id: int, pad_id: int) -> dict[str, Any]:
    """Return the content of the checkpoint's `config.json`."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": s.vocab,
        "hidden_size": s.hidden,
        "intermediate_size": s.feed,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.heads,
        "head_dim": s.head,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-6,
        "rope_theta": s.theta,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "initializer_range": 0.02,
        "torch_dtype": "bfloat16",
        "bos_token_id": None,
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
    }


def save(model: Decoder, folder: Path, end_id: int, pad_id: int) -> None:
    """Write weights (bf16) and configs; the trainer writes the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        f"model.{name}": value.detach().to(torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    generation = {"eos_token_id": [end_id], "pad_token_id": pad_id, "do_sample": False}
    for name, content in (
        ("config.json", config(model.shape, end_id, pad_id)),
        ("generation_config.json", generation),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> Decoder:
    """Load a checkpoint as a torch module in fp32."""
    c = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = Shape(
        vocab=c["vocab_size"],
        hidden=c["hidden_size"],
        layers=c["num_hidden_layers"],
        heads=c["num_attention_heads"],
        head=c["head_dim"],
        feed=c["intermediate_size"],
        theta=c["rope_theta"],
    )
    model = Decoder(shape)
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({k.removeprefix("model."): v.float() for k, v in weights.items()})
    return model
