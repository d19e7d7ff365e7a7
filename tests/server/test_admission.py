"""Whether one more call fits: arithmetic, then a server that says so."""

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server.admission import Admission
from server.limits import Limits
from streaming.doors import EngineLoad
from streaming.fakes import ScriptedEngine


@pytest.fixture
def admission() -> Admission:
    return Admission(0.85)


def fits(admission: Admission, load: EngineLoad | None, calls: int, now: float = 100.0) -> bool:
    return admission.refuses(load, calls, now) is None


@pytest.mark.parametrize(
    ("busy", "calls", "more"),
    [(0.0, 7, True), (0.74, 8, True), (0.76, 8, False), (0.42, 1, True), (0.43, 1, False), (0.63, 3, True), (0.64, 3, False)],
)
def test_one_more_like_the_present_ones(admission, busy: float, calls: int, more: bool) -> None:
    assert fits(admission, EngineLoad(busy, calls), calls) is more


def test_the_first_call_always_fits(admission) -> None:
    assert fits(admission, EngineLoad(1.0, 3), 0)


def test_eight_calls_may_come_at_once_before_anything_is_measured(admission) -> None:
    held = 0
    while fits(admission, None, held) and held < 20:
        admission.admitted(held, 100.0)
        held += 1
    assert held == 8


def test_new_calls_count_as_the_others_do_until_they_are_measured(admission) -> None:
    load = EngineLoad(0.4, 2)  # 0.2 each
    assert fits(admission, load, 2)
    admission.admitted("a", 100.0)
    assert fits(admission, load, 3)
    admission.admitted("b", 100.0)
    assert not fits(admission, load, 4)
    assert fits(admission, EngineLoad(0.4, 4), 4, 105.0)


def test_calls_that_have_left_count_no_more(admission) -> None:
    for call in range(50):
        admission.admitted(call, 100.0)
        admission.left(call)
    assert fits(admission, EngineLoad(0.1, 7), 7)


def test_of_a_new_engine_every_call_counts_as_new(admission) -> None:
    assert fits(admission, None, 7)
    assert not fits(admission, None, 8)


def test_the_refusal_says_who_is_there_and_when_to_come_back(admission) -> None:
    refusal = admission.refuses(EngineLoad(0.9, 4), 4, 0.0)
    assert (refusal.status, refusal.code, refusal.retry_after) == (503, "engine_busy", 5)
    assert refusal.message == "The engine has no room for another call: 4 calls are held. Try again in 5 seconds."
    assert "1 call is held" in admission.refuses(EngineLoad(0.9, 1), 1, 0.0).message


async def test_a_busy_server_refuses_before_the_upgrade_and_stays_healthy(start, dial) -> None:
    engine = ScriptedEngine()
    served = await start(engine)
    client = await dial(served)
    engine.report_load(0.6)
    await client.send(type="response.create")
    await client.until("response.done")
    with pytest.raises(InvalidStatus) as caught:
        await connect(served.ws)
    response = caught.value.response
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert b'"engine_busy"' in response.body
    assert (await served.get("/healthz")).status_code == 200
    text = (await served.get("/metrics")).text
    assert "vivavoce_engine_busy 0.6" in text
    assert 'vivavoce_refused_total{reason="engine_busy"} 1.0' in text
    # The call that is there goes on.
    await client.send(type="response.create")
    await client.until("response.done")


async def test_how_busy_is_a_setting(start, dial) -> None:
    engine = ScriptedEngine()
    served = await start(engine, limits=Limits(max_engine_busy=1.5))
    client = await dial(served)
    engine.report_load(0.7)
    await client.send(type="response.create")
    await client.until("response.done")
    await dial(served)
