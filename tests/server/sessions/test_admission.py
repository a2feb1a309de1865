"""Requests of a session are admitted with what is left, and again if another took it."""

import asyncio
from typing import Any

import pytest

from proctor.server.accounting import sessions as module
from proctor.server.accounting.cost import PriceModel
from proctor.server.accounting.ledger.store import Store
from proctor.server.accounting.reservation_store import ReservationStore, SessionClaim
from proctor.server.accounting.reservations import Reservation, Reservations
from proctor.server.accounting.sessions import MAX_TRIES, Sessions
from proctor.server.admission.controller import AdmissionController
from proctor.server.admission.routing import Router
from proctor.server.auth.rate_limits import WorstCase
from proctor.server.config.sessions import Limit, SessionLimits
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.errors import BadRequest, RateLimited, Unavailable
from proctor.server.generation.base import Admission
from proctor.server.schemas.generation import ChatRequest
from proctor.server.sessions.limits import Allowance, Session
from proctor.server.sessions.names import RequestedSession
from proctor.server.sessions.store import AllowanceChanged, SessionStore
from proctor.server.turns.history import RecordVerifier
from proctor.server.turns.secret_source import FixedSecrets
from tests.server.accounting.ledger.records import NOON
from tests.server.auth.keys import make_key
from tests.server.harness import CHAT, body, client, settings
from tests.waiting import PATIENCE

SETTINGS = settings()
SESSION = Session("", "s", True, SessionLimits(max_thinking_tokens=100))
SCRIPT = Script(("abc",), "de")


def make_sessions(store: Store | None = None, **overrides: Any) -> Sessions:
    server = settings(**overrides)
    reservations = Reservations(
        None if store is None else ReservationStore(store.engine),
        PriceModel(server.prices, server.compute),
        "gateway",
    )
    session_store = None if store is None else SessionStore(store.engine)
    return Sessions(server, session_store, reservations)


class Admissions:
    """Admits a request as the endpoint does, and remembers with what.

    Attributes:
        left: the thinking tokens that were left each time.
        conflicts: how many reservations fail, since another gateway was faster.
    """

    def __init__(self, conflicts: int, store: Store) -> None:
        self.left: list[int] = []
        self.conflicts = conflicts
        self._others = ReservationStore(store.engine)
        verifier = RecordVerifier(FixedSecrets([b"a secret"]))
        self._controller = AdmissionController(SETTINGS, Router.load(SETTINGS.router), verifier)

    async def admit(self, allowance: Allowance) -> Admission:
        amount = allowance.amount(Limit.THINKING, "custom")
        self.left.append(-1 if amount is None else amount.left)
        request = ChatRequest.model_validate(body())
        return await self._controller.admit(request, FakeEngine(SCRIPT), "name", None, allowance)

    async def reserve(self, admission: Admission, session: Session | None) -> Reservation:
        assert session == SESSION
        if len(self.left) <= self.conflicts:
            taken = WorstCase(9, 0, 5)
            name = f"other-{len(self.left)}"
            claim = SessionClaim(SESSION, "custom")
            await self._others.reserve(name, None, taken, NOON, "other", claim)
            raise AllowanceChanged
        return Reservation()


async def test_a_request_is_admitted_again_with_what_another_gateway_left(store: Store) -> None:
    admissions = Admissions(2, store)

    done = await make_sessions(store).admit(SESSION, admissions.admit, admissions.reserve)

    assert admissions.left == [100, 95, 90]
    assert done.admission.enforced.maximum == 90
    assert done.admission.clamped_by == ("session",)
    assert done.admission.reduced_by == (Limit.THINKING,)
    assert done.headers["x-session-thinking-remaining"] == "90"


async def test_a_request_that_is_always_overtaken_is_refused(store: Store) -> None:
    admissions = Admissions(MAX_TRIES, store)

    with pytest.raises(RateLimited, match="Too many concurrent requests") as refused:
        await make_sessions(store).admit(SESSION, admissions.admit, admissions.reserve)

    assert len(admissions.left) == MAX_TRIES
    assert "retry-after" in refused.value.headers


async def test_requests_of_a_session_are_admitted_in_turn_unless_one_hangs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, admissions = make_sessions(store), Admissions(0, store)
    entered, leave = asyncio.Event(), asyncio.Event()
    finished = []

    async def hang(allowance: Allowance) -> Admission:
        entered.set()
        await leave.wait()
        finished.append("first")
        return await admissions.admit(allowance)

    async def pass_by(allowance: Allowance) -> Admission:
        finished.append("second")
        return await admissions.admit(allowance)

    async def both(waits: float) -> list[str]:
        finished.clear()
        entered.clear()
        leave.clear()
        first = asyncio.create_task(sessions.admit(SESSION, hang, admissions.reserve))
        await entered.wait()
        second = asyncio.create_task(sessions.admit(SESSION, pass_by, admissions.reserve))
        await asyncio.wait({second}, timeout=waits)
        leave.set()
        await asyncio.gather(first, second)
        return [*finished]

    assert await both(0.05) == ["first", "second"]
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
    assert await both(PATIENCE) == ["second", "first"]


@pytest.mark.parametrize("limits", [{}, {"max_requests": 9}])
async def test_limits_fail_closed_and_names_alone_open(
    limits: dict[str, int], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise OSError("away")

    monkeypatch.setattr(SessionStore, "state", away)
    async with client(FakeEngine(SCRIPT), ledger={"url": url}) as http:
        borrowed = await http.post(CHAT, json=body(prompt_cache_key="s"))
        own = await http.post(CHAT, json=body(session={"id": "s", **limits}))
        shown = await http.get("/v1/sessions/s")

    assert (borrowed.status_code, own.status_code) == (200, 503)
    assert "session cannot be checked now" in own.json()["error"]["message"]
    assert own.headers["retry-after"] == "5"
    assert shown.status_code == 503


async def test_a_failed_reservation_is_a_503(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any) -> None:
        raise OSError("away")

    monkeypatch.setattr(ReservationStore, "reserve", away)
    async with client(FakeEngine(SCRIPT), ledger={"url": url}) as http:
        answer = await http.post(CHAT, json=body(session={"id": "s", "max_requests": 2}))

    assert answer.status_code == 503
    assert "The limits of this session cannot be checked" in answer.json()["error"]["message"]


def test_what_neither_has_a_name_nor_limits_has_no_session() -> None:
    sessions = make_sessions()

    assert sessions.open(RequestedSession(), None) is None
    assert sessions.open(RequestedSession(), make_key()[0]) is None
    named = sessions.open(RequestedSession("s"), make_key()[0])
    assert named is not None
    assert (named.key, named.id, named.limited) == ("team", "s", False)


def test_a_key_whose_limit_of_cost_cannot_be_checked_is_unavailable() -> None:
    key, _ = make_key(session={"max_cost": "2"})

    with pytest.raises(Unavailable, match="without prices"):
        make_sessions().open(RequestedSession("s"), key)


def test_limits_of_a_request_without_a_name_are_refused() -> None:
    requested = RequestedSession(limits=SessionLimits(max_requests=1))

    with pytest.raises(BadRequest, match="require its name"):
        make_sessions().open(requested, None)
