"""Calls over bad networks, through a relay with a seed: what a call can survive it survives, and what it can't ends it cleanly."""

import asyncio

import pytest

from agent.conversation import Conversation
from benchmarks.networks import GOOD, NETWORKS, Network
from streaming.fakes import ScriptedEngine, ScriptedReply

RATE = 48_000
REPLY = "One two three."
SAMPLES = 3 * 48 * 60
"""Of the reply: the scripted voice speaks 60 ms a word."""


def replying(count: int = 1) -> ScriptedEngine:
    return ScriptedEngine([ScriptedReply(REPLY)] * count)


async def counts(served) -> dict[str, float]:
    """What has become of packets, once a call is over."""
    prefix = "vivavoce_rtp_packets_total{outcome="
    async with asyncio.timeout(20):
        while "vivavoce_sessions 0.0" not in (text := (await served.get("/metrics")).text) or prefix not in text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    lines = [line for line in text.splitlines() if line.startswith(prefix)]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


async def asked(caller, speech) -> None:
    """A spoken turn, whose answer is completed and sent."""
    begin = len(caller.got)
    caller.mouth.say(speech(1_500, rate=RATE))
    assert (await caller.until("response.done", begin))["response"]["status"] == "completed"
    await caller.until("output_audio_buffer.stopped", begin)


async def asked_and_answered(caller, speech, turn: int = 0) -> None:
    """A spoken turn whose answer is heard."""
    await asked(caller, speech)
    assert len(await caller.hears(SAMPLES * (turn + 1))) >= SAMPLES * (turn + 1)


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if not network.stall])
async def test_a_turn_is_heard_through(start, ring_through, speech, name) -> None:
    served = await start(replying(), factory=Conversation)
    caller, relay = await ring_through(served)
    await caller.pause_for(2_000)
    relay.change(NETWORKS[name], down=GOOD)  # what is heard of us is counted to the sample
    await asked_and_answered(caller, speech)
    await caller.hang_up()
    counted = await counts(served)
    print(f"{name:>24}: {counted}")
    network = NETWORKS[name]
    assert counted["received"] > 50
    assert (counted["lost"] > 0) or not network.loss


async def test_a_turn_ends_though_nothing_comes_any_more_and_the_next_is_heard(start, ring_through, speech) -> None:
    """A page that sleeps, or a network that is gone: silence goes on at the pace of time. What was on its way then comes at once."""
    served = await start(replying(2), factory=Conversation)
    caller, relay = await ring_through(served)
    caller.mouth.say(speech(800, rate=RATE))
    await caller.until("input_audio_buffer.speech_started")
    relay.change(Network(loss=1.0))
    await caller.until("input_audio_buffer.speech_stopped")
    assert (await caller.until("response.done"))["response"]["status"] == "completed"
    await caller.until("output_audio_buffer.stopped")
    relay.change(GOOD)
    await asked(caller, speech)


async def test_what_was_held_up_comes_at_once_and_the_call_goes_on(start, ring_through, speech) -> None:
    served = await start(replying(2), factory=Conversation)
    caller, relay = await ring_through(served)
    await caller.pause_for(2_000)
    caller.mouth.say(speech(600, rate=RATE))
    await caller.until("input_audio_buffer.speech_started")
    relay.change(Network(stall=1.5))
    assert (await caller.until("response.done"))["response"]["status"] == "completed"
    relay.change(GOOD)
    await asked(caller, speech)


async def test_a_client_whose_address_changes_is_followed(start, ring_through, speech) -> None:
    """As RFC 8445 has it: the controlling side, a browser, asks from its new address with USE-CANDIDATE, and the call moves there."""
    served = await start(replying(2), factory=Conversation)
    caller, relay = await ring_through(served)
    await caller.pause_for(2_000)
    await asked_and_answered(caller, speech)
    await relay.rebind()
    ice = caller.pc.sctp.transport.transport._connection
    pair = ice._nominated[1]
    await pair.protocol.request(ice.build_request(pair, nominate=True), pair.remote_addr, integrity_key=ice.remote_password.encode())
    await asked_and_answered(caller, speech, turn=1)


async def test_a_client_that_has_gone_without_a_word_ends_its_call(start, ring_through, monkeypatch) -> None:
    """Consent to send expires (RFC 7675): nothing is left of the call."""
    monkeypatch.setattr("aioice.ice.CONSENT_INTERVAL", 0.05)
    served = await start()
    _, relay = await ring_through(served)
    relay.cut = True
    await counts(served)  # there are some once the session is over
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("rtc_")]
