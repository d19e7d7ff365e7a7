"""What was heard is what stands in the keys and values: random calls through a real session with the real engine on tiny float32 models."""

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.settings import PlaybackOwner
from benchmarks.heard import Situation
from benchmarks.simulated_call import Act, Quiet, SimulatedCall
from benchmarks.virtual_time import run_in_leaps
from streaming.engine import Parts, SpeechEngine
from streaming.events import WordMark
from streaming.tts import Speech

SESSION = "sess_simulated"


class SlowVoice:
    """250 ms a word, each with its mark. A word is six characters, for a model with random weights seldom writes a space."""

    def speak(self, text: str, rate: int, _speed: float = 1.0, *, prompt: bool = False, name: str = "") -> Iterator[Speech]:
        del prompt, name
        word, ends = rate // 4, [*range(6, len(text), 6), len(text)]
        if text.strip():
            pcm = np.full(word * len(ends), 1_000, np.int16)
            yield Speech(pcm, tuple(WordMark(end, word * (n + 1)) for n, end in enumerate(ends)), True)


TURNS = st.lists(st.tuples(st.integers(400, 2_500), st.sampled_from(("speak", "speak", "stop", "settle"))), min_size=2, max_size=3)
"""How long the caller lets the answer go on, and how they end it."""


@settings(deadline=None, max_examples=settings.default.max_examples * 4 // 100)
@example(owner=PlaybackOwner.CLIENT, truncates=True, turns=[(1_300, "speak"), (1_600, "speak")], seed=1)
@given(owner=st.sampled_from(PlaybackOwner), truncates=st.booleans(), turns=TURNS, seed=st.integers(0, 1 << 16))
def test_the_tokens_of_a_reply_are_those_of_what_was_heard(
    tiny_parts: Parts, owner: PlaybackOwner, truncates: bool, turns: list[tuple[int, str]], seed: int
) -> None:
    parts = replace(tiny_parts, voice=SlowVoice())
    engine = SpeechEngine(parts, threaded=False, clock=lambda: 0.0)
    template, model = parts.writer.template, parts.writer.model

    def check(quiet: Quiet) -> None:
        while engine.busy():
            engine.step()
        held = engine._sessions[SESSION].sequence
        by_item, start = {}, 0
        for segment in held.segments:
            by_item[segment.item_id] = held.tokens[start : segment.end]
            start = segment.end
        for reply in quiet.replies:
            if reply.truncated or owner is PlaybackOwner.SERVER:
                assert reply.believed == reply.words_within(reply.heard_samples(quiet.now))
            assert reply.believed == reply.retrieved
            words = reply.believed.strip()
            expected = template._closed("assistant", words) if words else None
            assert by_item.get(reply.item_id) == expected
        assert model.decode(held.tokens).count("assistant\n") == len([reply for reply in quiet.replies if reply.believed.strip()])

    situation = Situation(owner, truncate_ms=(0, 2_000) if truncates else None)
    acts = [Act("speak", 400), *(act for ms, kind in turns for act in (Act("wait", ms), Act(kind, 600)))]
    run_in_leaps(SimulatedCall(situation.caller(random.Random(seed)), engine, on_quiet=check).run(acts))
