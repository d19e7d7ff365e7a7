"""What became of one overlap: from a call that has been played (`benchmarks.call`) to figures."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from agent.commands import Cut, Duck, Hold
from agent.settings import PlaybackOwner
from benchmarks.call import Call
from streaming.events import SAMPLE_RATE, SetHistory

__all__ = ["Outcome", "judge"]

_AUDIBLE: Final = 10 ** (-40 / 20)
_SILENCE: Final = 60 * SAMPLE_RATE // 1_000
"""A stretch of the loudspeaker this long and inaudible is silence; a plosive's closure is shorter."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Times in samples of 16 kHz from the onset; None where it did not happen. `held_ms` is how long the reply was silent on purpose,
    `resumed` whether all of it was played once and in order, `heard_error_ms` how far what history believes is from what sounded."""

    cut_after: int | None
    stop: int | None
    duck: int | None
    held_ms: float
    resumed: bool
    heard_error_ms: float | None


def judge(call: Call) -> Outcome | None:
    """None where the reply did not sound as the onset came: the turn before had not been taken, or had been taken twice."""
    dialogue, begins = call.dialogue, call.reply_begins
    assert dialogue.reply is not None
    if begins is None or abs(begins - dialogue.reply_at) > SAMPLE_RATE // 10:
        return None
    cut = call.first(Cut, begins)
    duck = call.first((Duck, Hold), dialogue.onset - SAMPLE_RATE // 10)
    return Outcome(
        cut_after=None if cut is None else cut - dialogue.onset,
        stop=None if cut is None or call.owner is not PlaybackOwner.SERVER else _stop(call),
        duck=None if duck is None else _lowered(call, duck) - dialogue.onset,
        held_ms=call.held_ms(),
        resumed=_in_order(call) and (cut is not None or call.played_samples == len(dialogue.reply.pcm)),
        heard_error_ms=None if cut is None else _heard_error(call),
    )


def _stop(call: Call) -> int:
    """The last audible sample before the silence that the caller gets, from the onset."""
    onset = call.dialogue.onset
    audible = np.flatnonzero(np.abs(call.loudspeaker()[onset:]) >= _AUDIBLE)
    if not len(audible):
        return 0
    gaps = np.flatnonzero(np.diff(audible) > _SILENCE)
    # What follows the first silence that a hold made is the same reply going on, until it was cut.
    for gap in gaps:
        if call.is_held(onset + int(audible[gap]) + _SILENCE):
            return int(audible[gap]) + 1
    return int(audible[-1]) + 1


def _lowered(call: Call, ordered: int) -> int:
    """When the first lowered sample plays: the first that leaves after the order."""
    return next((at for at, _ in call.played if at >= ordered), ordered)


def _in_order(call: Call) -> bool:
    position = 0
    for _, delta in call.played:
        if delta.start != position:
            return False
        position += delta.samples
    return True


def _heard_error(call: Call) -> float | None:
    """Sound of the words that history believes were heard against what sounded, in ms: negative where it believes too little. A word that
    was being spoken as it stopped is not counted on either side."""
    assert call.dialogue.reply is not None
    believed = next((c.messages for _, c in reversed(call.ordered) if isinstance(c, SetHistory)), ())
    said = next((message for message in believed if message.item_id == call.played[0][1].part.item_id), None)
    heard = len(said.text or "") if said is not None else 0
    ends = call.word_ends()
    sounded = call.sounded_by_cut
    true = max((end for end, _ in ends if end <= sounded), default=0)
    told = max((end for end, text_end in ends if text_end <= heard + 1), default=0)
    return (told - true) * 1_000 / SAMPLE_RATE
