"""What is believed to have been said is what was heard, to the word: random calls through a real session, whoever owns playback and however
slow the network (`benchmarks.simulated_call`, which also looks at every message that leaves)."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.settings import PlaybackOwner
from benchmarks.heard import Situation, heard_errors
from benchmarks.said_reply import RATE
from benchmarks.simulated_call import Act, Quiet, SimulatedCall
from benchmarks.virtual_time import run_in_leaps
from streaming.fakes import ScriptedEngine, ScriptedReply

ACTS = st.lists(
    st.builds(Act, st.sampled_from(("speak", "speak", "speak", "wait", "wait", "write", "stop", "settle")), st.integers(40, 1_500)),
    max_size=10,
)
DELAYS = st.tuples(st.integers(1, 250), st.integers(1, 250)).map(sorted).map(tuple)
SITUATIONS = st.builds(
    Situation,
    st.sampled_from(PlaybackOwner),
    DELAYS,
    DELAYS,
    st.one_of(st.none(), st.tuples(st.just(0), st.integers(0, 3_000))),
    st.sampled_from((0, 20, 60)),
)
REPLIES = st.lists(st.integers(1, 60), min_size=1, max_size=8).map(
    lambda lengths: [ScriptedReply(" ".join(f"w{n}" + ("." if n % 11 == 5 else "") for n in range(words))) for words in lengths]
)
ENGINES = st.builds(
    ScriptedEngine,
    REPLIES,
    word_ms=st.sampled_from((60, 120, 200, 330)),
    chunk_ms=st.sampled_from((None, 50, 200)),
    words_per_step=st.just(8),
)

ESTIMATED_MS = 60 + 150
"""What a client that says nothing is believed to be behind (`server.playout`); and a report of one that does, at the latest."""


def slack_ms(situation: Situation) -> float:
    """How far an estimate may be off: both ways of the network, what it takes for granted, and a truncation of the reply before that came
    so late."""
    if situation.owner is PlaybackOwner.SERVER:
        return 0
    late = 0 if situation.truncate_ms is None else situation.truncate_ms[1] + situation.up_ms[1]
    return situation.down_ms[1] + situation.up_ms[1] + ESTIMATED_MS + situation.sound_card_ms + late


@settings(deadline=None, max_examples=settings.default.max_examples * 60 // 100)
@given(situation=SITUATIONS, acts=ACTS, engine=ENGINES, seed=st.integers(0, 1 << 16))
def test_heard_is_history_is_belief(situation: Situation, acts: list[Act], engine: ScriptedEngine, seed: int) -> None:
    slack = slack_ms(situation) * RATE / 1_000

    def check(quiet: Quiet) -> None:
        for reply in quiet.replies:
            samples = reply.heard_samples(quiet.now)
            heard = reply.words_within(samples)
            assert reply.believed == reply.retrieved
            if reply.truncated:
                assert reply.believed == reply.retrieved_after_truncation == heard
            elif situation.owner is PlaybackOwner.ACKED and not reply.flushed:
                assert reply.believed == heard
            else:
                assert len(reply.words_within(samples - slack)) <= len(reply.believed) <= len(reply.words_within(samples + slack))

    call = SimulatedCall(situation.caller(random.Random(seed)), engine, on_quiet=check)
    run_in_leaps(call.run(acts))
    assert set(call.refused) <= {"response_cancel_not_active", "conversation_already_has_active_response"}


def test_the_errors_are_measured() -> None:
    """Where the server owns playback, and where the client says how much it has played, there are none."""
    known = [
        error
        for owner in PlaybackOwner
        for seed in range(3)
        for error in heard_errors(Situation(owner), seed)
        if error.truncated or owner is PlaybackOwner.SERVER
    ]
    assert len(known) > 5
    assert {(error.ms, error.words) for error in known} == {(0.0, 0)}
