from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proctor.server.cli.workers.setup import share_settings
from proctor.server.config.settings import Settings

ELSEWHERE = {"kind": "completions", "base_url": "http://elsewhere/v1"}


def settings(workers: int, **overrides: Any) -> Settings:
    return Settings(workers=workers, model="m", engine=ELSEWHERE, **overrides)


@given(st.integers(1, 16), st.integers(0, 300), st.integers(0, 300))
def test_the_limits_of_all_workers_add_up(workers: int, spare: int, waiting: int) -> None:
    limits = {"max_choices": 1, "max_running": workers + spare, "max_waiting": waiting}

    shares = [share.limits for share in share_settings(settings(workers, limits=limits))]

    assert len(shares) == workers
    for name in ("max_running", "max_waiting"):
        values = [getattr(share, name) for share in shares]
        assert sum(values) == limits[name]
        assert max(values) - min(values) <= 1
    assert all(share.max_running >= share.max_choices for share in shares)


@given(st.integers(1, 16), st.integers(1, 40), st.integers(0, 300))
def test_grammars_are_compiled_in_as_many_processes_and_one_per_worker_at_least(
    workers: int, processes: int, waiting: int
) -> None:
    grammars = {"processes": processes, "max_waiting": waiting}

    shares = [
        share.grammars
        for share in share_settings(
            settings(workers, limits={"max_running": 16 * workers}, grammars=grammars)
        )
    ]

    assert sum(share.processes for share in shares) == max(processes, workers)
    assert sum(share.max_waiting for share in shares) == waiting


def test_all_else_is_the_same_for_all_workers() -> None:
    whole = settings(3, ledger={"url": "sqlite:///ledger.db"})

    shares = share_settings(whole)

    for share in shares:
        assert (
            share.model_copy(update={"limits": whole.limits, "grammars": whole.grammars}) == whole
        )


def test_without_a_database_the_workers_share_a_new_secret_of_records() -> None:
    first, second = share_settings(settings(2))
    (other, _) = share_settings(settings(2))

    (secret,) = first.auth.record_secrets
    assert second.auth.record_secrets == (secret,)
    assert other.auth.record_secrets != (secret,)


def test_configured_secrets_of_records_are_kept() -> None:
    secret = "s" * 32

    shares = share_settings(settings(2, auth={"record_secrets": [secret]}))

    for share in shares:
        (kept,) = share.auth.record_secrets
        assert kept.get_secret_value() == secret
