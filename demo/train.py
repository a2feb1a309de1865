"""Train the demo model on one CPU core, seeded: `python -m proctor.demo.train`."""

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

from proctor.demo.lessons import DIRECT, HASTY, LEARN, MARKS, Document, DocumentSampler
from proctor.demo.network import Decoder, Shape, load, save
from proctor.demo.tokenizer import END_OF_TEXT, IM_END, SPECIAL, tokenizer_config, train_tokenizer

MODEL = Path(__file__).with_name("model")
BATCH_TOKENS = 3072  # per batch
POOL_DOCUMENTS = 1024  # documents drawn at a time, then sorted by length
LEARNING_RATE = 3e-3
# The accuracy of immediate results above which their loss is withheld, which keeps the model hasty.
TARGETS = {
    HASTY["+"]: 0.94,
    HASTY["-"]: 0.94,
    HASTY["*"]: 0.76,
    DIRECT["+"]: 0.97,
    DIRECT["-"]: 0.97,
    DIRECT["*"]: 0.84,
}


def muon_direction(moment: Tensor) -> Tensor:
    """Orthogonalize (…, rows, columns) by Newton-Schulz, scaled to the size of an Adam step."""
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
        self.adam = torch.optim.AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)

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
        """Update the weights from the accuracy by mark in the last batch.

        Targets of hasty results start 0.06 lower and rise with the progress.
        """
        for mark, target in TARGETS.items():
            if mark in measured:
                self.accuracy[mark] += 0.05 * (measured[mark] - self.accuracy[mark])
            goal = target - 0.06 * max(0.0, 1 - progress / 0.9) * (mark in HASTY.values())
            maximum = 1.0 if mark in HASTY.values() else 2.0
            self.weight[mark] = min(maximum, max(0.0, (goal - self.accuracy[mark]) / 0.02))


def batches(sampler: DocumentSampler, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches endlessly: ids and marks, each (rows, length), with rows of similar length."""
    shuffle = Random(seed)
    while True:
        pool = sorted((sampler.document() for _ in range(POOL_DOCUMENTS)), key=lambda d: len(d.ids))
        ready, rows = [], list[Document]()
        for document in pool:
            length = -(-len(document.ids) // 16) * 16
            if rows and (len(rows) + 1) * length > BATCH_TOKENS:
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
    """Return cross-entropy and hit (argmax is the target) per next token, (rows, length - 1)."""
    logits = model(ids[:, :-1])
    target = ids[:, 1:]
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    return loss.view_as(target), logits.argmax(-1) == target


def make_tokenizer(folder: Path, seed: int) -> Tokenizer:
    """Train the tokenizer on the texts of sample documents, and write its files."""
    rng, texts = Random(seed), list[str]()

    def record(text: str) -> list[int]:
        texts.append(text)
        return [0]

    sampler = DocumentSampler(record, rng)
    sampler.cache = _NoCache()
    for _ in range(4000):
        sampler.document()
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


class _NoCache(dict[str, list[int]]):
    """A cache that stores nothing, so that every occurrence of a text is recorded."""

    def __setitem__(self, key: str, value: list[int]) -> None:
        pass

    def __getitem__(self, key: str) -> list[int]:
        return [0]


def schedule(progress: float) -> float:
    """Return the learning rate as a share of its peak: warm-up, flat, linear to almost zero."""
    return min(1.0, progress * 60 + 0.01, (1 - progress) / 0.4 + 0.002)


def initialize(folder: Path, seed: int, resume: bool) -> tuple[Tokenizer, Decoder]:
    """Return a new tokenizer and network, or with `resume` those of the checkpoint."""
    if resume:
        return Tokenizer.from_file(str(folder / "tokenizer.json")), load(folder)
    tokenizer = make_tokenizer(folder, seed)
    return tokenizer, Decoder(Shape(vocab=tokenizer.get_vocab_size()))


def train(
    folder: Path, steps: int, minutes: float, seed: int, compiled: bool, resume: bool
) -> None:
    """Train for `steps` batches or `minutes`, whichever ends first, and write the checkpoint."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    tokenizer, model = initialize(folder, seed, resume)
    end, pad = (tokenizer.encode(t).ids[0] for t in (IM_END, END_OF_TEXT))
    optimizer, governor = Optimizer(model), Governor()
    sampler = DocumentSampler(
        lambda t: tokenizer.encode(t, add_special_tokens=False).ids, Random(seed)
    )
    run = torch.compile(losses, dynamic=True) if compiled else losses
    stream, began = batches(sampler, seed), time.monotonic()
    with Progress(
        SpinnerColumn(), *Progress.get_default_columns()[:3], TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    ) as bar:  # fmt: skip
        task = bar.add_task("training", total=steps, note="")
        for step in range(steps):
            progress = max(step / steps, (time.monotonic() - began) / 60 / minutes)
            if progress >= 1:
                break
            ids, marks = next(stream)
            loss, hit = run(model, ids)
            mark = marks[:, 1:]
            weight = governor.weight[mark]
            total = (loss * weight).sum() / weight.sum().clamp(min=1.0)
            total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step(LEARNING_RATE * schedule(progress))
            model.zero_grad(set_to_none=True)
            governor.update(accuracies(hit, mark), progress)
            if step % 50 == 0:
                note = f"loss {total.item():.3f}  immediate results " + " ".join(
                    f"{a:.2f}" for a in governor.accuracy.values()
                )
                bar.update(task, completed=step, note=note)
                if not bar.console.is_terminal:
                    print(f"{step} {time.monotonic() - began:.0f}s {ids.shape} {note}", flush=True)
            if step % 500 == 99:
                save(model, folder, end, pad)
        save(model, folder, end, pad)


def accuracies(hit: Tensor, mark: Tensor) -> dict[int, float]:
    """Return the share of right two-digit results by class, from the share of right digits."""
    shares = {}
    for kind in TARGETS:
        of_kind = mark == kind
        if count := int(of_kind.sum()):
            shares[kind] = (int((hit & of_kind).sum()) / count) ** 2
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=MODEL)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument(
        "--minutes", type=float, default=55.0, help="maximum duration, including the decay"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--resume", action="store_true", help="continue to train the folder's model"
    )
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    train(
        options.folder,
        options.steps,
        options.minutes,
        options.seed,
        not options.no_compile,
        options.resume,
    )


if __name__ == "__main__":
    main()
