"""`python -m proctor.demo.train`: makes the demo model again, seeded, on one CPU core."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from rich.progress import (
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tokenizers import Tokenizer
from torch import Tensor

from proctor.demo.lessons import CONTEXT, DIRECT, HASTY, LEARN, MARKS, Document, Writer
from proctor.demo.network import Decoder, Shape, load, save
from proctor.demo.tokenizer import END_OF_TEXT, IM_END, SPECIAL, tokenizer_config, train_tokenizer

MODEL = Path(__file__).with_name("model")
TOKENS = 3072  # per batch
POOL = 1024  # documents drawn at a time, then sorted by length
RATE = 3e-3
# Accuracy of results in one go above which their loss is withheld: this is the model's haste.
TARGETS = {
    HASTY["+"]: 0.94,
    HASTY["-"]: 0.94,
    HASTY["*"]: 0.76,
    DIRECT["+"]: 0.97,
    DIRECT["-"]: 0.97,
    DIRECT["*"]: 0.84,
}


def muon_direction(moment: Tensor) -> Tensor:
    """Orthogonalise (…, rows, columns) by Newton-Schulz, scaled to the size of an Adam step."""
    tall = moment.shape[-2] > moment.shape[-1]
    x = moment.mT if tall else moment
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x) * (0.2 * max(moment.shape[-2:]) ** 0.5)


class Optimizer:
    """Muon for the matrices (stacked by shape, for speed), AdamW for embedding and norms."""

    def __init__(self, model: Decoder) -> None:
        self.groups: dict[tuple[int, ...], list[torch.nn.Parameter]] = {}
        rest = []
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                self.groups.setdefault(tuple(weight.shape), []).append(weight)
            else:
                rest.append(weight)
        self.moments = {s: torch.zeros(len(g), *s) for s, g in self.groups.items()}
        self.adam = torch.optim.AdamW(rest, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for shape, weights in self.groups.items():
            gradient = torch.stack([w.grad for w in weights if w.grad is not None])
            moment = self.moments[shape].mul_(0.95).add_(gradient)
            update = muon_direction(gradient + 0.95 * moment)
            for weight, change in zip(weights, update, strict=True):
                weight.mul_(1 - rate * 0.02).sub_(change, alpha=rate)
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()


class Governor:
    """Withholds the loss of a class of results while its accuracy is above its target."""

    def __init__(self) -> None:
        self.accuracy = dict.fromkeys(TARGETS, 0.0)
        self.weight = torch.zeros(MARKS)
        self.weight[LEARN] = 1.0
        self.update({}, 0.0)

    def update(self, measured: dict[int, float], progress: float) -> None:
        """`measured`: accuracy by mark in the last batch. Targets start a little lower."""
        for mark, target in TARGETS.items():
            if mark in measured:
                self.accuracy[mark] += 0.05 * (measured[mark] - self.accuracy[mark])
            goal = target - 0.06 * max(0.0, 1 - progress / 0.9) * (mark in HASTY.values())
            most = 1.0 if mark in HASTY.values() else 2.0
            self.weight[mark] = min(most, max(0.0, (goal - self.accuracy[mark]) / 0.02))


def batches(writer: Writer, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids, marks), each (rows, length); rows of a batch are about equally long."""
    shuffle = Random(seed)
    while True:
        pool = sorted((writer.document() for _ in range(POOL)), key=lambda d: len(d.ids))
        ready, rows = [], list[Document]()
        for document in pool:
            length = -(-len(document.ids) // 16) * 16
            if rows and (len(rows) + 1) * length > TOKENS:
                ready.append(stack(rows))
                rows = []
            rows.append(document)
        ready.append(stack(rows))
        shuffle.shuffle(ready)
        yield from ready


def stack(rows: list[Document]) -> tuple[Tensor, Tensor]:
    length = -(-len(rows[-1].ids) // 16) * 16
    ids, marks = (
        torch.zeros(len(rows), length, dtype=torch.long),
        torch.zeros(len(rows), length, dtype=torch.long),
    )
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        marks[index, : len(row.ids)] = torch.tensor(row.marks)
    return ids, marks


def losses(model: Decoder, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and hit (argmax is the target) of each next token, (rows, length - 1)."""
    logits = model(ids[:, :-1])
    target = ids[:, 1:]
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    return loss.view_as(target), logits.argmax(-1) == target


def make_tokenizer(folder: Path, seed: int) -> Tokenizer:
    """Learn the tokenizer on sample documents' text and write its files."""
    rng, texts = Random(seed), list[str]()

    def listen(text: str) -> list[int]:
        texts.append(text)
        return [0]

    writer = Writer(listen, rng)
    writer.cache = _Forgetful()
    for _ in range(4000):
        writer.document()
    between = re.compile("|".join(map(re.escape, SPECIAL)))
    tokenizer = train_tokenizer(part for text in texts for part in between.split(text))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in (
        ("tokenizer_config.json", tokenizer_config()),
        ("special_tokens_map.json", {"eos_token": IM_END, "pad_token": END_OF_TEXT}),
    ):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    return tokenizer


class _Forgetful(dict[str, list[int]]):
    """A cache that keeps nothing, so that the tokenizer sees how often a piece occurs."""

    def __setitem__(self, key: str, value: list[int]) -> None:
        pass

    def __getitem__(self, key: str) -> list[int]:
        return [0]


def schedule(progress: float) -> float:
    """Learning rate as a share of its peak: a short warm-up, flat, then linear to nearly zero."""
    return min(1.0, progress * 60 + 0.01, (1 - progress) / 0.4 + 0.002)


def begin(folder: Path, seed: int, resume: bool) -> tuple[Tokenizer, Decoder]:
    """A fresh tokenizer and network, or those of a checkpoint to train on."""
    if resume:
        return Tokenizer.from_file(str(folder / "tokenizer.json")), load(folder)
    tokenizer = make_tokenizer(folder, seed)
    return tokenizer, Decoder(Shape(vocab=tokenizer.get_vocab_size()))


def train(
    folder: Path, steps: int, minutes: float, seed: int, compiled: bool, resume: bool
) -> None:
    """Train until `steps` batches or `minutes` are over, whichever is first, and export."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    tokenizer, model = begin(folder, seed, resume)
    end, pad = (tokenizer.encode(t).ids[0] for t in (IM_END, END_OF_TEXT))
    optimizer, governor = Optimizer(model), Governor()
    writer = Writer(lambda t: tokenizer.encode(t, add_special_tokens=False).ids, Random(seed))
    run = torch.compile(losses, dynamic=True) if compiled else losses
    feed, begun, seen = batches(writer, seed), time.monotonic(), 0
    with Progress(
        SpinnerColumn(), *Progress.get_default_columns()[:3], TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    ) as bar:  # fmt: skip
        task = bar.add_task("training", total=steps, note="")
        for step in range(steps):
            progress = max(step / steps, (time.monotonic() - begun) / 60 / minutes)
            if progress >= 1:
                break
            ids, marks = next(feed)
            loss, hit = run(model, ids)
            mark = marks[:, 1:]
            weight = governor.weight[mark]
            total = (loss * weight).sum() / weight.sum().clamp(min=1.0)
            total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step(RATE * schedule(progress))
            model.zero_grad(set_to_none=True)
            governor.update(accuracies(hit, mark), progress)
            seen += int((mark != CONTEXT).sum())
            if step % 50 == 0:
                note = f"loss {total.item():.3f}  in one go " + " ".join(
                    f"{a:.2f}" for a in governor.accuracy.values()
                )
                bar.update(task, completed=step, note=note)
                if not bar.console.is_terminal:
                    print(f"{step} {time.monotonic() - begun:.0f}s {ids.shape} {note}", flush=True)
            if step % 500 == 99:
                save(model, folder, end, pad)
        save(model, folder, end, pad)


def accuracies(hit: Tensor, mark: Tensor) -> dict[int, float]:
    """Share of two-digit results that are right, by class, from the share of right digits."""
    out = {}
    for kind in TARGETS:
        here = mark == kind
        if count := int(here.sum()):
            out[kind] = (int((hit & here).sum()) / count) ** 2
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=MODEL)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=55.0, help="end by then, decay included")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="train the folder's model on")
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    a = arguments
    train(a.folder, a.steps, a.minutes, a.seed, not a.no_compile, a.resume)


if __name__ == "__main__":
    main()
