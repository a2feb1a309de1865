"""Compare policies of balancing in a simulation.

    .venv/bin/python -m bench.balance
    .venv/bin/python -m bench.balance --replicas 16 --gateways 4

Nothing is measured: replicas are simulated (`replica.py` has the costs of their steps) and so are
their requests (`trace.py`). What is not simulated is the policy: the server's own `Balancer`.
"""

import argparse
from collections.abc import Sequence
from statistics import fmean

from bench.balance.policies import POLICIES
from bench.balance.replica import Costs
from bench.balance.simulation import Outcome, Result, Simulation
from bench.balance.trace import AGENT, PROOF, Rates, sessions

RATES = Rates(agents=5.0, chats=10.0, proofs=2.5)
"""About as much as the replicas can take with most of the prompts cached."""

HEADER = (
    "| replicas | gateways | policy | cache hits, of possible | first token, p50 / p99, s "
    "| agent's call, p99, s | proof, p99, s | imbalance |\n|--:|--:|---|---|---|--:|--:|--:|"
)


def simulate(
    policy: str, *, replicas: int, gateways: int, load: float, seconds: float, seed: int
) -> Result:
    """Simulate one policy."""
    trace = sessions(seed, RATES.scaled(load), replicas, seconds)
    policies = [POLICIES[policy](replicas) for _ in range(gateways)]
    return Simulation(trace, policies, replicas, Costs()).run(seconds)


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def hits(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Return the shares of prompt tokens that were cached, and that could have been.

    The second is that of one cache without bounds, which all replicas share.
    """
    prompt = sum(each.prompt_tokens for each in outcomes)
    cached = sum(each.cached_tokens for each in outcomes)
    return cached / prompt, sum(each.possible_tokens for each in outcomes) / prompt


def imbalance(result: Result, warm_up: float) -> float:
    """Return the tokens on the fullest replica, as a multiple of the mean of all, on average."""
    return fmean(max(each) / fmean(each) for each in result.loads[int(warm_up) :] if any(each))


def row(replicas: int, gateways: int, policy: str, result: Result, warm_up: float) -> str:
    """Format the calls that were sent after the warm-up."""
    outcomes = [each for each in result.outcomes if each.sent >= warm_up]
    cached, possible = hits(outcomes)
    first = [each.first_token - each.sent for each in outcomes]
    whole = {
        budget: [each.ended - each.sent for each in outcomes if each.budget is budget]
        for budget in (AGENT, PROOF)
    }
    return (
        f"| {replicas} | {gateways} | {policy} | {cached:.1%} of {possible:.1%} "
        f"| {quantile(first, 0.5):.2f} / {quantile(first, 0.99):.2f} "
        f"| {quantile(whole[AGENT], 0.99):.1f} | {quantile(whole[PROOF], 0.99):.0f} "
        f"| {imbalance(result, warm_up):.2f} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[4, 16, 64, 256])
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--gateways", type=int, default=1, help="each sees only its own calls")
    parser.add_argument("--load", type=float, default=1.0, help="a factor of the sessions' rates")
    parser.add_argument("--seconds", type=float, default=240, help="the second half is counted")
    parser.add_argument("--seed", type=int, default=2, help="the policies were tuned on 1")
    options = parser.parse_args(arguments)
    print(HEADER)
    for replicas in options.replicas:
        for policy in options.policies:
            result = simulate(
                policy,
                replicas=replicas,
                gateways=options.gateways,
                load=options.load,
                seconds=options.seconds,
                seed=options.seed,
            )
            print(row(replicas, options.gateways, policy, result, options.seconds / 2), flush=True)


if __name__ == "__main__":
    main()
