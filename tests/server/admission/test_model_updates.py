"""A server that learns by itself."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import orjson
import pytest
from pydantic import ValidationError

from proctor.router import Conversation
from proctor.server.accounting.ledger.records import LedgerRecord, RecordedTexts
from proctor.server.accounting.ledger.store import Store
from proctor.server.admission.model_updates import NOT_USED, ModelUpdates
from proctor.server.admission.routing import Router
from proctor.server.config.budgets import RouterSettings
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings
from proctor.server.engines.fake import FakeEngine
from proctor.server.storage.database import connect
from tests.router.outcomes.models import TIERS, model
from tests.server.accounting.ledger.records import NOON, make_record
from tests.server.harness import running_app
from tests.waiting import PATIENCE

HOUR = 3600.0


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - what it waits for is in another process
            await asyncio.sleep(0.01)


class Clock:
    """A clock that is set by hand, by which files are dated too."""

    def __init__(self) -> None:
        self.seconds = 1.0e9

    def __call__(self) -> float:
        return self.seconds


class Pupil:
    """Stands for the process that learns."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self.clock = clock
        self.status = 0
        self.count = 0
        self.before: Callable[[], object] = lambda: None

    async def __call__(self) -> int:
        self.count += 1
        self.before()
        if self.status in (0, NOT_USED):
            self.write(self.path.with_suffix(".md"), lambda path: path.write_text("report"))
        if self.status == 0:
            self.write(self.path, model().save)
        return self.status

    def write(self, path: Path, write: Callable[[Path], object]) -> None:
        write(path)
        os.utime(path, (self.clock.seconds, self.clock.seconds))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.npz"


@pytest.fixture
def router(path: Path) -> Router:
    settings = RouterSettings(classifier="rules", model=path, error_cost=1000.0, learn_hours=6.0)
    return Router.load(settings)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pupil(path: Path, clock: Clock) -> Pupil:
    return Pupil(path, clock)


@pytest.fixture
def updates(router: Router, path: Path, clock: Clock, pupil: Pupil) -> ModelUpdates:
    return ModelUpdates(router, path, 6 * HOUR, pupil, clock)


def rule(router: Router) -> str:
    return router.classify_conversation(Conversation.of("hi")).choice.rule


async def test_what_was_learned_is_used(updates: ModelUpdates, router: Router) -> None:
    assert rule(router) == "costs"
    await updates.check()
    assert rule(router) == "error_cost"


async def test_it_learns_once_in_an_interval(
    updates: ModelUpdates, clock: Clock, pupil: Pupil
) -> None:
    for hours, count in ((0, 1), (5, 1), (1, 2), (0, 2), (7, 3)):
        clock.seconds += hours * HOUR
        await updates.check()
        assert pupil.count == count


@pytest.mark.parametrize("status", [NOT_USED, 2, -9])
async def test_a_model_that_is_not_good_enough_changes_nothing(
    status: int, updates: ModelUpdates, router: Router, pupil: Pupil, clock: Clock
) -> None:
    pupil.status = status
    await updates.check()
    await updates.check()
    assert rule(router) == "costs"
    assert pupil.count == 1
    clock.seconds += 6 * HOUR
    pupil.status = 0
    await updates.check()
    assert rule(router) == "error_cost"


async def test_another_process_that_learns_is_followed(
    updates: ModelUpdates, router: Router, path: Path, pupil: Pupil, clock: Clock
) -> None:
    other = Router.load(
        RouterSettings(classifier="rules", model=path, error_cost=1000.0, learn_hours=6.0)
    )
    others_pupil = Pupil(path, clock)
    following = ModelUpdates(other, path, 6 * HOUR, others_pupil, clock)
    checked = []

    async def check_meanwhile() -> None:
        await following.check()
        checked.append(rule(other))

    async def learn() -> int:
        await check_meanwhile()
        return await pupil()

    updates._learn = learn
    await updates.check()
    await following.check()
    assert checked == ["costs"]
    assert others_pupil.count == 0
    assert rule(other) == "error_cost"


async def test_a_broken_model_is_not_used(
    updates: ModelUpdates, router: Router, path: Path, clock: Clock, pupil: Pupil
) -> None:
    await updates.check()
    before = router.classify_conversation(Conversation.of("hi")).choice
    clock.seconds += 1
    pupil.write(path, replace(model(), tiers=np.array([*TIERS[:3], "max"])).save)
    await updates.check()
    clock.seconds += 1
    pupil.write(path, lambda broken: broken.write_bytes(b"no model"))
    await updates.check()
    assert router.classify_conversation(Conversation.of("hi")).choice.tier == before.tier
    assert rule(router) == "error_cost"


@pytest.mark.parametrize(
    ("router_fields", "ledger", "reason"),
    [
        ({"learn_hours": 1, "error_cost": 1}, {}, "learn_hours requires model"),
        (
            {"learn_hours": 1, "error_cost": 1, "model": "x.npz"},
            {"url": "sqlite:///x.db"},
            r"requires a ledger with texts",
        ),
        (
            {"learn_hours": 1, "error_cost": 1, "model": "x.npz"},
            {"texts": True},
            r"requires a ledger with texts",
        ),
    ],
)
def test_settings_without_a_source_are_refused(
    router_fields: dict[str, object], ledger: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        Settings(router=router_fields, ledger=ledger)


def test_a_model_without_a_folder_is_refused(router: Router, tmp_path: Path) -> None:
    settings = Settings(
        router={"model": tmp_path / "nowhere" / "x.npz", "error_cost": 1, "learn_hours": 1},
        ledger={"url": "sqlite:///x.db", "texts": True},
    )
    with pytest.raises(ConfigError, match=r"router\.model: There is no folder .*nowhere"):
        ModelUpdates.of(settings, router)


def test_by_default_nothing_is_learned(router: Router) -> None:
    assert ModelUpdates.of(Settings(), router) is None


def rows() -> list[LedgerRecord]:
    """Return graded answers: every tier is right for greetings, only `high` for proofs."""
    records = []
    for number in range(240):
        tier, hard = TIERS[number % 4], number % 8 >= 4
        text = f"Prove that {number} divides n!." if hard else f"hello {number}"
        request = orjson.dumps({"messages": [{"role": "user", "content": text}]}).decode()
        records.append(
            make_record(
                number,
                tier=tier,
                time=NOON + timedelta(minutes=number),
                thinking_tokens=50 * TIERS.index(tier),
                score=float(tier == "high" or not hard),
                texts=RecordedTexts(request, "", ""),
            )
        )
    return records


@pytest.mark.slow
async def test_a_server_learns_from_its_ledger_in_a_process_of_its_own(
    path: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    store = Store(connect(url))
    await store.migrate()
    await store.write(rows())
    await store.aclose()
    router = {"classifier": "rules", "model": path, "error_cost": 1000, "learn_hours": 6}
    async with running_app(
        FakeEngine(), default_tier="auto", router=router, ledger={"url": url, "texts": True}
    ):
        await until(path.exists)
    report = path.with_suffix(".md").read_text()
    assert "**To be used**" in report
    assert "| high | 60 | 60 |" in report


async def test_a_server_that_ends_takes_its_pupil_along(
    router: Router, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = tmp_path / "pid"
    command = ("/bin/sh", "-c", f"echo $$ > {started}; exec sleep 600")
    monkeypatch.setattr("proctor.server.admission.model_updates.COMMAND", command)
    settings = Settings(
        router={"model": path, "error_cost": 1, "learn_hours": 1, "classifier": "rules"},
        ledger={"url": "sqlite:///x.db", "texts": True},
    )
    updates = ModelUpdates.of(settings, router)
    assert updates is not None
    async with updates.running():
        await until(lambda: started.exists() and "\n" in started.read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
