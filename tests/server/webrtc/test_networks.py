"""Bad networks: lost and reordered RTP packets, from a seed; and a network that goes silent."""

import asyncio
import random

import pytest

from agent.conversation import Conversation
from streaming.fakes import ScriptedEngine, ScriptedReply

RATE = 48_000


def spoil(caller, *, loss: float = 0.0, swap: float = 0.0, seed: int = 1) -> None:
    """Between the caller's sender and the wire: what is lost is never sent, what is swapped goes after the next packet."""
    transport = caller.pc.getSenders()[0].transport
    send = transport._send_rtp
    chance = random.Random(seed)
    held: list[bytes] = []

    async def send_badly(data: bytes) -> None:
        if 192 <= data[1] <= 223:  # RTCP (RFC 5761)
            await send(data)
            return
        if chance.random() < loss:
            return
        if chance.random() < swap and not held:
            held.append(data)
            return
        await send(data)
        while held:
            await send(held.pop())

    transport._send_rtp = send_badly


def counted(metrics: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name))


@pytest.mark.parametrize("loss", [0.05, 0.2, 0.4])
async def test_a_turn_is_heard_through_loss(start, ring, speech, loss) -> None:
    served = await start(ScriptedEngine([ScriptedReply("One two three.")]), factory=Conversation)
    caller = await ring(served)
    await caller.pause_for(2_000)
    spoil(caller, loss=loss)
    caller.mouth.say(speech(1_500, rate=RATE))
    done = await caller.until("response.done")
    assert done["response"]["status"] == "completed"
    assert len(await caller.hears(48 * 180)) >= 48 * 180
    await caller.hang_up()
    async with asyncio.timeout(20):
        while not counted(text := (await served.get("/metrics")).text, 'vivavoce_rtp_packets_total{reason="lost"}'):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert counted(text, "vivavoce_rtp_wait_seconds_count") > 50


async def test_what_is_swapped_is_put_in_order(start, ring, speech) -> None:
    served = await start(ScriptedEngine([ScriptedReply("One two three.")]), factory=Conversation)
    caller = await ring(served)
    await caller.pause_for(2_000)
    spoil(caller, swap=0.3)
    caller.mouth.say(speech(1_500, rate=RATE))
    assert (await caller.until("response.done"))["response"]["status"] == "completed"
    await caller.hang_up()
    text = (await served.get("/metrics")).text
    assert counted(text, "vivavoce_rtp_wait_seconds_count") > 0
    assert counted(text, 'vivavoce_rtp_packets_total{reason="lost"}') == 0


async def test_a_turn_ends_though_nothing_comes_any_more(start, ring, speech) -> None:
    """A page that sleeps, or a network that is gone: silence goes on at the pace of time."""
    served = await start(ScriptedEngine([ScriptedReply("One two three.")]), factory=Conversation)
    caller = await ring(served)
    caller.mouth.say(speech(800, rate=RATE))
    await caller.until("input_audio_buffer.speech_started")
    spoil(caller, loss=1.0)
    await caller.until("input_audio_buffer.speech_stopped")
    assert (await caller.until("response.done"))["response"]["status"] == "completed"
