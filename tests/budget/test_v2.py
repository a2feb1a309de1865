"""The V2 processor: slots that are reused, drafts that are rejected, tokens on the device."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from vllm import SamplingParams
from vllm.v1.worker.gpu import buffer_utils
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState
from vllm.v1.worker.gpu.states import RequestState

from proctor.budget import (
    EMPTY_RECORD,
    UNKNOWN_VOCABULARY,
    BudgetError,
    Markers,
    TokenBudget,
    Vocabulary,
    replay,
)
from proctor.budget.processors import attempt_log, v2
from proctor.budget.processors.drafts import DraftCounts
from proctor.budget.processors.params import KEY, EngineBudget, with_markers
from tests.budget.requests import LENGTH, Request, assert_obeys
from tests.budget.strategies import (
    EOS,
    VOCABULARY,
    Sampler,
    budgets,
    markers_and_vocabularies,
    moves,
)

pytestmark = pytest.mark.slow

SLOTS = 4
PROMPT = [0, 1, 6, 2]
ROOM = len(PROMPT) + LENGTH + 8

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


class _WriteKernel:
    """vLLM's kernel for staged writes, which needs Triton, on the CPU."""

    def __getitem__(self, _: object) -> "_WriteKernel":
        return self

    def __call__(
        self,
        out: Any,
        stride: int,
        rows: Any,
        starts: Any,
        values: Any,
        ends: Any,
        *_: Any,
        **__: Any,
    ) -> None:
        begin = 0
        for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
            at = row * stride + start
            out.view(-1)[at : at + end - begin] = values[begin:end]
            begin = end


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The available devices; on the CPU without vLLM's pinned memory and kernels."""
    device = torch.device(request.param)
    if device.type == "cpu":
        with (
            patch.object(buffer_utils, "is_uva_available", return_value=False),
            patch.object(buffer_utils, "_apply_write_kernel", _WriteKernel()),
        ):
            yield device
    else:
        yield device


def config(markers: Markers, drafts: int) -> Any:
    return SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=ROOM),
        parallel_config=SimpleNamespace(enable_batch_sharded_sampling=False),
        speculative_config=SimpleNamespace(rejection_sample_method="standard"),
        num_speculative_tokens=drafts,
        additional_config=with_markers({}, markers),
    )


class Runner:
    """The part of vLLM's V2 runner that processors see: greedy, with vLLM's request states.

    As in vLLM's worker, steps run in inference mode and the worker's other calls do not.
    """

    def __init__(
        self,
        markers: Markers,
        device: torch.device,
        vocabulary: Vocabulary = UNKNOWN_VOCABULARY,
        drafts: int = 0,
    ) -> None:
        self._device = device
        self._states = RequestState(SLOTS, ROOM, ROOM, drafts, VOCABULARY, device)
        with patch.object(v2, "vocabulary_of", return_value=vocabulary):
            self.processor = v2.BudgetLogitsProcessor(
                config(markers, drafts), LogitsProcRequestState.from_request_state(self._states)
            )
        self.running: list[Request] = []

    def slot(self, request: Request) -> int:
        return self._states.req_id_to_index[request.key]

    def remove(self, request: Request) -> None:
        """Remove a finished or preempted request; the processor is not notified."""
        self.running.remove(request)
        self._states.remove_request(request.key)

    @torch.inference_mode()
    def add(self, *requests: Request) -> None:
        for request in requests:
            prompt_length = len(PROMPT) + len(request.resumed)
            self._states.add_request(request.key, prompt_length, PROMPT + request.tokens, 0, LENGTH)
            returned = self.processor.add_request(self.slot(request), request.params)
            assert returned == (request.budget is not None)
            self.running.append(request)
        self._states.apply_staged_writes()
        self.processor.apply_staged_writes()

    def context(self, batch: list[Request], drafts: list[list[int]]) -> LogitsContext:
        """Return the context of a batch with these drafts for each request."""
        slots = np.array([self.slot(request) for request in batch])
        counts = [len(drafted) + 1 for drafted in drafts]
        lengths = np.array([len(PROMPT) + len(request.tokens) for request in batch])
        offsets = torch.cat([torch.arange(count) for count in counts])
        last = [(PROMPT + request.tokens)[-1] for request in batch]
        fed = [token for one, more in zip(last, drafts, strict=True) for token in (one, *more)]
        return LogitsContext(
            expanded_idx_mapping=torch.tensor(np.repeat(slots, counts)).to(self._device),
            idx_mapping=torch.tensor(slots).to(self._device),
            idx_mapping_np=slots,
            expanded_local_pos=offsets.int().to(self._device),
            input_ids=torch.tensor(fed, dtype=torch.int32).to(self._device),
            pos=(torch.tensor(np.repeat(lengths, counts)) + offsets - 1).to(self._device),
            seq_lens_upper_bound_np=(lengths + np.array(counts) - 1).astype(np.int32),
        )

    @torch.inference_mode()
    def step(
        self,
        batch: list[Request],
        drafts: list[list[int]],
        logits: torch.Tensor,
        prefilling: Collection[str] = (),
    ) -> None:
        """Run the processor and sample.

        Args:
            batch: the scheduled requests, at least one.
            drafts: the draft tokens of each request.
            logits: [rows, vocabulary]; a row per draft and one more.
            prefilling: keys of requests still in prefill, whose sampled tokens are dropped.
        """
        logits = logits.to(self._device)
        assert self.processor.apply(logits, self.context(batch, drafts)) is logits
        self.accept(batch, drafts, logits, prefilling)

    @torch.inference_mode()
    def accept(
        self,
        batch: list[Request],
        drafts: list[list[int]],
        logits: torch.Tensor,
        prefilling: Collection[str] = (),
    ) -> None:
        """Sample greedily, accept the drafts that agree, and update the device."""
        sampled = iter(logits.argmax(dim=-1).tolist())
        for request, drafted in zip(batch, drafts, strict=True):
            rows = [next(sampled) for _ in range(len(drafted) + 1)]
            agreed = 0
            while agreed < len(drafted) and drafted[agreed] == rows[agreed]:
                agreed += 1
            if request.key not in prefilling:
                self._accept(request, rows[: agreed + 1])

    def _accept(self, request: Request, tokens: list[int]) -> None:
        slot = self.slot(request)
        end = int(self._states.total_len.gpu[slot])
        accepted = torch.tensor(tokens, dtype=torch.int32, device=self._device)
        self._states.all_token_ids.gpu[slot, end : end + len(tokens)] = accepted
        self._states.total_len.gpu[slot] += len(tokens)
        for token in tokens:
            # Tokens after the end of a request stay on the device and are ignored.
            if not request.over:
                request.output.append(token)


def one_hot(tokens: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(tokens), VOCABULARY).float()


class Scenario:
    """A random run with added, finished, preempted, prefilling and drafting requests."""

    def __init__(self, data: st.DataObject, device: torch.device) -> None:
        self._draw = data.draw
        self.markers, self.vocabulary = data.draw(markers_and_vocabularies())
        self._drafts = data.draw(st.integers(0, 3))
        self.runner = Runner(self.markers, device, self.vocabulary, self._drafts)
        self.requests: list[Request] = []
        self.preferred: dict[str, list[int]] = {}
        self._waiting: list[Request] = []
        self._prefilling: set[str] = set()

    def step(self) -> None:
        self._remove_some()
        self._add_some()
        self._prefilling = {key for key in self._prefilling if self._draw(st.booleans())}
        batch = [one for one in self.runner.running if self._draw(st.integers(0, 5))]
        if not batch:
            return
        batch = self._draw(st.permutations(batch))
        drafts = [self._drafted(request) for request in batch]
        rows = [
            self.preference(request, len(request.tokens) + taken)
            for request, drafted in zip(batch, drafts, strict=True)
            for taken in range(len(drafted) + 1)
        ]
        self.runner.step(batch, drafts, one_hot(rows), self._prefilling)
        for request in self.runner.running:
            if self._draw(st.integers(0, 9)) == 0:
                self.runner.processor.move_maximum(request.key, *self._draw(moves()))

    def preference(self, request: Request, position: int) -> int:
        """Return the token that the model prefers at a position, whatever came before."""
        preferred = self.preferred[request.name]
        while len(preferred) <= position:
            preferred.append(self._draw(st.integers(0, VOCABULARY - 1)))
        return preferred[position]

    def _remove_some(self) -> None:
        for request in list(self.runner.running):
            if request.over:
                self.runner.remove(request)
            elif self._draw(st.integers(0, 9)) == 0:  # preempted, with or without its last tokens
                self.runner.remove(request)
                lost = self._draw(st.integers(0, 3))
                request.output = request.output[: max(0, len(request.output) - lost)]
                if self._draw(st.booleans()):  # resumed by another engine
                    request.change_engine(self.runner.processor.take_record(request.key))
                self._waiting.append(request)

    def _add_some(self) -> None:
        entering: list[Request] = []
        while len(self.runner.running) + len(entering) < SLOTS and self._draw(st.booleans()):
            if len(self._waiting) > 0 and self._draw(st.booleans()):
                request = self._waiting.pop(0)
            else:
                name = f"r{len(self.requests)}"
                request = Request.greedy(name, self._draw(st.none() | budgets()))
                self.requests.append(request)
                self.preferred[name] = []
            entering.append(request)
            if self._draw(st.booleans()):
                self._prefilling.add(request.key)
        self.runner.add(*entering)

    def _drafted(self, request: Request) -> list[int]:
        """Draw drafts that will be accepted, up to one that may not be, and placeholders."""
        if request.key in self._prefilling:
            return []
        drafted: list[int] = []
        sampler = self._sampler(request)
        for taken in range(self._draw(st.integers(0, self._drafts))):
            if not self._draw(st.integers(0, 4)):
                drafted.append(self._draw(st.integers(-1, VOCABULARY - 1)))
                break
            token, attempted = self.preference(request, len(request.tokens) + taken), False
            if sampler is not None:
                token, attempted = sampler.next(token)
                sampler.machine.advance(token, attempted)
            drafted.append(token)
        return drafted + [-1] * self._draw(st.integers(0, self._drafts - len(drafted)))

    def _sampler(self, request: Request) -> Sampler | None:
        if request.budget is None:
            return None
        record = self.runner.processor.take_record(request.key)
        machine = replay(
            request.budget,
            self.markers,
            request.tokens,
            record.attempts,
            self.vocabulary,
            record.moves,
        )
        return Sampler(machine, self.vocabulary)


@given(data=st.data())
def test_every_row_obeys_its_own_budget(device: torch.device, data: st.DataObject) -> None:
    scenario = Scenario(data, device)
    for _ in range(data.draw(st.integers(1, 25))):
        scenario.step()
    for request in scenario.requests:
        record = scenario.runner.processor.take_record(request.key)
        record = request.record if record == EMPTY_RECORD else record
        preferred = scenario.preferred[request.name]
        if request.budget is None:
            assert request.tokens == preferred[: len(request.tokens)]
            assert record == EMPTY_RECORD
        else:
            assert_obeys(request, scenario.markers, scenario.vocabulary, record, preferred)


ONE = Markers(start=(6,), end=(7,), eos=frozenset({EOS}))


def params_with(budget: TokenBudget, key: str = "r", **params: Any) -> SamplingParams:
    return SamplingParams(extra_args=EngineBudget(key, 7, budget).to_extra_args(), **params)


def test_drafts_do_not_change_the_draws(device: torch.device) -> None:
    logits = torch.randn(40, VOCABULARY, generator=torch.Generator().manual_seed(3))
    budget = TokenBudget(minimum=30, continuation_ids=((1,), (2, 3)))

    def run(drafter: Callable[[int], list[int]]) -> tuple[list[int], list[int]]:
        runner = Runner(ONE, device, drafts=3)
        request = Request("r", budget, params_with(budget, temperature=1.0))
        runner.add(request)
        while len(request.tokens) < 30:
            done = len(request.tokens)
            drafted = drafter(done)
            runner.step([request], [drafted], logits[done : done + len(drafted) + 1].clone())
        attempts = sorted(runner.processor.take_record("r").attempts)
        return request.tokens[:30], [at for at in attempts if at < 30]

    tokens, attempts = run(lambda done: [])
    replay(budget, ONE, tokens, frozenset(attempts))
    assert attempts
    assert run(lambda done: tokens[done : done + 3]) == (tokens, attempts)
    assert run(lambda done: [*tokens[done : done + 2], 0]) == (tokens, attempts)
    assert run(lambda done: [-1, -1]) == (tokens, attempts)


def test_drafts_are_counted_by_phase(device: torch.device) -> None:
    runner = Runner(ONE, device, drafts=3)
    request, without_budget = Request.greedy("r", TokenBudget()), Request.greedy("other", None)
    runner.add(request, without_budget)
    runner.step([request, without_budget], [[1, 2, 3], [1]], one_hot([1, 2, 0, 0, 1, 1]))
    runner.step([request], [[7, 4, -1]], one_hot([7, 4, 5, 5]))
    assert request.tokens == [1, 2, 0, 7, 4, 5]
    runner.processor.take_record("r")
    assert runner.processor.draft_counts() == DraftCounts(
        thinking=4, accepted_thinking=3, answer=1, accepted_answer=1
    )


def test_a_preempted_request_keeps_its_attempts_in_another_slot(device: torch.device) -> None:
    budget = TokenBudget(continuations=2, continuation_ids=((1,), (2,)))
    runner = Runner(ONE, device)
    request, other = Request.greedy("r", budget), Request.greedy("other", None)
    runner.add(request, other)
    previous_slot = runner.slot(request)
    runner.step([request], [[]], one_hot([7]))
    runner.remove(request)
    runner.remove(other)
    runner.add(request)
    assert runner.slot(request) != previous_slot
    for preference in (1, 7, 7):
        runner.step([request], [[]], one_hot([preference]))
    assert request.tokens == [1, 1, 2, 7]
    assert runner.processor.take_record("r").attempts == {0, 2}


def test_a_masked_token_stays_masked(device: torch.device) -> None:
    budget = TokenBudget(maximum=0)
    runner = Runner(ONE, device)
    request = Request("r", budget, params_with(budget))
    runner.add(request)
    logits = torch.zeros(1, VOCABULARY, device=device)
    logits[0, 7] = -torch.inf
    runner.processor.apply(logits, runner.context([request], [[]]))
    assert logits[0, 7] == -torch.inf
    assert logits[0, :6].isfinite().all()


def test_a_preempted_request_that_diverged_from_its_budget_is_unchanged(
    device: torch.device,
) -> None:
    budget = TokenBudget(maximum=0)
    runner = Runner(ONE, device)
    request = Request("r", budget, params_with(budget), output=[1])  # where 7 was forced
    runner.add(request)
    logits = torch.zeros(1, VOCABULARY, device=device)
    before = logits.clone()
    runner.processor.apply(logits, runner.context([request], [[]]))
    assert logits.equal(before)
    assert runner.processor.take_record("r") == EMPTY_RECORD


def test_unread_attempt_records_are_bounded(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_log, "MAX_RECORDS", 2)
    runner = Runner(ONE, device)
    budget = TokenBudget(minimum=5, continuation_ids=((1,),))
    for number in range(12):
        request = Request.greedy(f"r{number}", budget)
        runner.add(request)
        runner.step([request], [[]], one_hot([7]))
        runner.remove(request)
    kept = [sorted(runner.processor.take_record(f"r{number}").attempts) for number in range(12)]
    assert kept == [[]] * 9 + [[0]] * 3  # the last of them still owns its slot


class _FailOnOperations(TorchDispatchMode):
    """Fails on any tensor operation."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was called")


def test_a_batch_without_budgets_is_unchanged(device: torch.device) -> None:
    runner = Runner(ONE, device)
    plain = Request("plain", None, SamplingParams())
    runner.add(plain)
    logits = torch.randn(1, VOCABULARY, device=device)
    context: Any = SimpleNamespace(idx_mapping_np=np.array([runner.slot(plain)]))
    with _FailOnOperations():
        assert runner.processor.apply(logits, context) is logits


class _FailOnSynchronization(TorchDispatchMode):
    """Fails on operations that synchronize with a device: values, or shapes that depend on them."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique_", "equal.")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        assert not name.startswith(self.WAITS), f"{func} synchronizes with the device"
        if name.startswith(("index.", "index_put")):
            masks = [one for one in args[1] if one is not None and one.dtype == torch.bool]
            assert not masks, f"{func} with a mask synchronizes with the device"
        return func(*args, **(kwargs or {}))


@contextmanager
def fail_on_synchronization(device: torch.device) -> Iterator[None]:
    with _FailOnSynchronization():
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


def test_a_step_does_not_synchronize_with_the_device(device: torch.device) -> None:
    budget = TokenBudget(minimum=3, maximum=6, continuation_ids=((1, 2),), wrap_up_ids=(4,))
    texts = [b"a", b"\xc3", b"\xa4", b"\xe2", b"\xf0\x9f", b"."]
    whole = Vocabulary.from_bytes([*texts, *[b""] * (VOCABULARY - len(texts))])
    runner = Runner(ONE, device, whole, drafts=2)
    settings: dict[str, dict[str, Any]] = {
        "greedy": {"temperature": 0},
        "sampled": {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.01},
    }
    requests = [Request(key, budget, params_with(budget, key, **settings[key])) for key in settings]
    runner.add(*requests, Request("plain", None, SamplingParams()))
    drafts = [[1, 2], [3, 4], []]
    generator = torch.Generator().manual_seed(5)
    for _ in range(8):
        logits = torch.randn(7, VOCABULARY, generator=generator).to(device)
        context = runner.context(runner.running, drafts)
        with fail_on_synchronization(device):
            runner.processor.apply(logits, context)
        runner.accept(runner.running, drafts, logits)
    assert all(len(request.tokens) >= 8 for request in requests)


@pytest.mark.parametrize(
    "change",
    [
        {"speculative_config": SimpleNamespace(rejection_sample_method="synthetic")},
        {"parallel_config": SimpleNamespace(enable_batch_sharded_sampling=True)},
        {"additional_config": {}},
    ],
)
def test_an_engine_that_cannot_enforce_budgets_does_not_start(change: dict[str, Any]) -> None:
    changed = config(ONE, 0)
    vars(changed).update(change)
    states: Any = SimpleNamespace(max_num_reqs=1, device=torch.device("cpu"), vocab_size=VOCABULARY)
    with pytest.raises(ValueError, match=r"synthetic|sharded|markers"):
        v2.BudgetLogitsProcessor(changed, states)


def test_penalties_are_accepted() -> None:
    budget = TokenBudget(minimum=5, continuation_ids=((1,),))
    v2.BudgetLogitsProcessor.validate_params(params_with(budget, presence_penalty=1.0))


@pytest.mark.parametrize("params", [{"extra_args": {KEY: 3}}, {"thinking_token_budget": 3}])
def test_unenforceable_params_are_refused_at_admission(params: dict[str, Any]) -> None:
    carried = {**EngineBudget("r", 7, TokenBudget()).to_extra_args()}
    with pytest.raises(BudgetError):
        v2.BudgetLogitsProcessor.validate_params(
            SamplingParams(**{"extra_args": carried, **params})
        )
