"""The outbox: order, bounds, and sound that can be taken back."""

import asyncio

import pytest

from server.outbox import Outbox, OutboxFullError


async def test_events_leave_in_order() -> None:
    outbox = Outbox(100)
    for text in "abc":
        outbox.put(text)
    assert [await outbox.get() for _ in range(3)] == ["a", "b", "c"]


async def test_beyond_the_bound_nothing_is_queued() -> None:
    outbox = Outbox(10)
    outbox.put("x" * 10)
    with pytest.raises(OutboxFullError):
        outbox.put("y")
    assert outbox.waiting_bytes == 10
    await outbox.get()
    assert outbox.waiting_bytes == 0
    outbox.put("y")


async def test_cut_sound_is_taken_back_and_the_rest_stays() -> None:
    outbox = Outbox(100)
    outbox.put("one", audio_of="r1")
    outbox.put("text")
    outbox.put("two", audio_of="r2")
    assert not outbox.has_audio_room
    assert outbox.drop_audio("r1") == 1
    assert (outbox.has_audio_room, outbox.waiting_bytes) == (True, 7)
    assert [await outbox.get(), await outbox.get()] == ["text", "two"]


async def test_drained_means_handed_to_the_transport() -> None:
    outbox = Outbox(100)
    outbox.put("a")
    waiting = asyncio.create_task(outbox.drained())
    assert await outbox.get() == "a"
    await asyncio.sleep(0)
    assert not waiting.done()
    getting = asyncio.create_task(outbox.get())
    await waiting
    outbox.put("b")
    assert await getting == "b"
