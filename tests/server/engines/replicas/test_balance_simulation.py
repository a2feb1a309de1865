"""`python -m bench.balance`: the simulation obeys its own rules."""

from collections.abc import Iterator
from itertools import count, pairwise

import pytest

from bench.balance.__main__ import hits, main, simulate
from bench.balance.policies import POLICIES
from bench.balance.replica import Costs, Replica, Request
from bench.balance.simulation import Result
from bench.balance.trace import AGENT, BLOCK_TOKENS, Call, Rates, Session, Text, sessions

SECONDS = 40.0


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    return {
        policy: simulate(policy, replicas=3, gateways=1, load=1.0, seconds=SECONDS, seed=3)
        for policy in POLICIES
    }


def drain(replica: Replica) -> None:
    while (due := replica.due) is not None:
        replica.advance(due)


class Sent:
    """A request of its own session, and when its tokens came."""

    def __init__(self, prompt_tokens: int, output: int, numbers: Iterator[int]) -> None:
        prompt = Text().extended(prompt_tokens, numbers)
        sequence = prompt.extended(output, numbers)
        self.call = Call(Session("s", "a", AGENT, 0.0), prompt, output, sequence)
        self.tokens: list[tuple[int, float]] = []
        self.ended = 0.0
        self.request = Request(
            self.call, lambda number, now: self.tokens.append((number, now)), self._end
        )

    def _end(self, now: float) -> None:
        self.ended = now

    @property
    def generated(self) -> int:
        return sum(number for number, _ in self.tokens)


def test_every_call_ends_with_its_tokens(results: dict[str, Result]) -> None:
    for result in results.values():
        assert len(result.outcomes) > 50
        assert len(result.loads) == SECONDS
        for each in result.outcomes:
            assert each.sent < each.first_token <= each.ended


def test_hits_are_possible(results: dict[str, Result]) -> None:
    for result in results.values():
        for each in result.outcomes:
            assert 0 <= each.cached_tokens <= each.possible_tokens <= each.prompt_tokens


def test_prefixes_are_found(results: dict[str, Result]) -> None:
    shares = {policy: hits(result.outcomes)[0] for policy, result in results.items()}

    for policy in ("prefix-aware", "Proctor", "Proctor, by session"):
        assert shares[policy] > shares["round robin"]
        assert shares[policy] > shares["least requests"]


def test_a_simulation_can_be_repeated(results: dict[str, Result]) -> None:
    again = simulate("Proctor", replicas=3, gateways=1, load=1.0, seconds=SECONDS, seed=3)

    assert [(each.sent, each.ended) for each in again.outcomes] == [
        (each.sent, each.ended) for each in results["Proctor"].outcomes
    ]


def test_the_table_has_a_row_for_each_policy(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--replicas 2 --gateways 2 --seconds 40 --load 2 --policies Proctor"
    main(arguments.split())
    *_, row = capsys.readouterr().out.splitlines()

    assert row.startswith("| 2 | 2 | Proctor | ")


def test_prompts_of_agents_continue_each_other() -> None:
    trace = sessions(1, Rates(agents=10, chats=0, proofs=0), 1, 60)
    assert trace

    for session in trace:
        calls = [call for _, call in session.calls]
        for before, after in pairwise(calls):
            length = len(before.sequence.ids)
            assert after.prompt.ids[:length] == before.sequence.ids
            assert after.prompt.blocks[: length // BLOCK_TOKENS] == before.sequence.blocks
        assert all(
            len(call.prompt.ids) // BLOCK_TOKENS == len(call.prompt.blocks) for call in calls
        )


def test_a_step_costs_what_is_stated() -> None:
    costs = Costs()
    replica = Replica(costs)
    sent = Sent(10_000, 3, count(1))
    replica.submit(sent.request, 0.0)
    drain(replica)

    first, second = costs.step_tokens, 10_000 - costs.step_tokens
    prefill = 2 * costs.step_seconds + (first + second) * costs.prefill_seconds
    step = costs.step_seconds + costs.row_seconds + 10_001 * costs.context_seconds
    assert sent.generated == 3
    assert sent.tokens[0] == pytest.approx((1, prefill))
    assert sent.ended == pytest.approx(prefill + 2 * step)


def test_what_was_generated_is_cached_and_an_arrival_ends_the_steps_under_way() -> None:
    numbers = count(1)
    replica = Replica(Costs())
    sent = Sent(1000, 400, numbers)
    replica.submit(sent.request, 0.0)
    drain(replica)
    following = Sent(10, 5, numbers)
    following.call.prompt = sent.call.sequence.extended(100, numbers)
    running = Sent(300, 1000, numbers)
    replica.submit(running.request, sent.ended)
    replica.advance(replica.due or 0.0)
    before = replica.due
    replica.submit(following.request, sent.ended + 0.05)

    assert before is not None
    assert replica.due is not None
    assert sent.ended + 0.05 <= replica.due < before
    drain(replica)
    assert following.request.cached_tokens == 1400 // BLOCK_TOKENS * BLOCK_TOKENS


def test_a_full_cache_preempts_and_everything_ends() -> None:
    numbers = count(1)
    replica = Replica(Costs(cache_blocks=40))
    sent = [Sent(100, 2000, numbers) for _ in range(6)]
    for each in sent:
        replica.submit(each.request, 0.0)
    drain(replica)

    assert replica.preemptions > 0
    assert [each.generated for each in sent] == [2000] * 6
    assert replica.cache.used == 0
