import json

import httpx
import pytest

from proctor.demo.measure import (
    CAPS,
    CONTINUATIONS,
    Client,
    Point,
    RequestRefused,
    questions,
    recheck_table,
    settings,
    wilson,
)


def test_wilson_intervals() -> None:
    low, high = wilson(50, 100)
    assert (round(low, 3), round(high, 3)) == (0.404, 0.596)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_questions_are_unseen_and_repeatable() -> None:
    drawn = questions(20, 3, 8, 1)
    assert drawn == questions(20, 3, 8, 1)
    assert all(q.problem.unseen and 3 <= len(q.problem.steps) <= 8 for q in drawn)


async def test_a_point_counts_right_answers_and_thinking() -> None:
    drawn = questions(4, 1, 1, 1)
    right = {q.text: q.problem.answer for q in drawn[:3]}

    def reply(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        assert body["thinking"] == {"continuations": 2}
        assert body["seed"] in range(4)
        number = right.get(body["messages"][0]["content"], 1000)
        return httpx.Response(
            200,
            json={
                "choices": [
                    {"message": {"content": f"The answer is {number}.", "reasoning_content": "so"}}
                ],
                "usage": {"completion_tokens_details": {"reasoning_tokens": 10}},
            },
        )

    transport = httpx.MockTransport(reply)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        extra = {"thinking": {"continuations": 2}}
        point = await Client(client, "m", 2).point("2", drawn, 0.6, extra)
    assert point == Point("2", 3, 4, 10.0, ("so",) * 4)
    assert point.cells == ("2", "0.750", "0.301-0.954", "10")


async def test_a_refused_request_ends_the_measurement() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(400, text="no"))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        with pytest.raises(RequestRefused, match="400: no"):
            await Client(client, "m", 1).point("0", questions(1, 1, 1, 1), 0.0, {})


def test_settings_cover_every_cap_and_continuation() -> None:
    tables = settings(0.0)
    assert [len(rows) for rows in tables.values()] == [len(CAPS), len(CONTINUATIONS)]


def test_recheck_steps_are_counted_by_operation() -> None:
    traces = ["a:56-13=43\nso 43\nWait, check:\na:56-13;6-3=3,5-1=4,43?43 ok\nall ok 43"] * 3
    table = recheck_table([*traces, "a:56-13;6-3=3,5-1=4,43?16 ok"], "greedy")
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows[1] == ("-", "4", "1.000", "0.510-1.000", "0.750", "0.301-0.954")
    assert rows[0][1] == rows[2][1] == "0"
