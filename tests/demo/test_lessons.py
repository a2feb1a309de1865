from random import Random

from tokenizers import Tokenizer

from proctor.demo.lessons import CONTEXT, DIRECT, HASTY, Document, DocumentSampler
from proctor.demo.train import MODEL, Governor, batches

tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def encode(text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def documents(count: int, seed: int = 3) -> list[Document]:
    sampler = DocumentSampler(encode, Random(seed))
    return [sampler.document() for _ in range(count)]


def test_documents_are_seeded_and_fit_the_context() -> None:
    drawn = documents(300)
    assert [d.ids for d in drawn] == [d.ids for d in documents(300)]
    assert all(len(d.ids) == len(d.marks) == len(d.wrong) <= 2048 for d in drawn)


def test_prompts_are_never_targets() -> None:
    opening = encode("<|im_start|>assistant\n<think>")
    for document in documents(300):
        assert document.marks[: len(opening)] == [CONTEXT] * len(opening)


def test_results_marked_as_hasty_are_right() -> None:
    """The digits after `a:12+34=` carry a mark only where they are the true sum."""
    for document in documents(300):
        text = [tokenizer.decode([i], skip_special_tokens=False) for i in document.ids]
        for at, mark in enumerate(document.marks):
            whole = text[at - 1] == "=" and text[at + 1].isdigit()  # not cut off in between
            if mark in HASTY.values() and mark != CONTEXT and whole:
                head = "".join(text[at - 8 : at - 1]).split(":")[-1]
                assert eval(_without_leading_zeros(head)) % 100 == int(text[at] + text[at + 1])


def _without_leading_zeros(sum_: str) -> str:
    for op in "+-*":
        left, found, right = sum_.partition(op)
        if found:
            return f"{int(left)}{op}{int(right)}"
    raise AssertionError(sum_)


def test_answers_after_a_wrong_value_are_not_targets() -> None:
    (closed,) = encode("</think>")
    for document in documents(300):
        at = len(document.ids) - 1 - document.ids[::-1].index(closed)
        if document.wrong[at - 1]:
            digits = [m for i, m in zip(document.ids[at:], document.marks[at:], strict=True)
                      if tokenizer.decode([i]).isdigit()]  # fmt: skip
            assert set(digits) == {CONTEXT}


def test_the_governor_stops_training_what_is_learned_well_enough() -> None:
    governor = Governor()
    mark = HASTY["*"]
    assert governor.weight[mark] == 1
    for _ in range(200):
        governor.update({mark: 1.0, DIRECT["+"]: 0.5}, 1.0)
    assert governor.weight[mark] == 0
    assert governor.weight[DIRECT["+"]] > 0


def test_batches_are_padded_with_context_only() -> None:
    ids, marks = next(batches(DocumentSampler(encode, Random(1)), 1))
    assert ids.shape == marks.shape
    assert ids.shape[1] % 16 == 0
    assert not marks[ids == 0].any()
