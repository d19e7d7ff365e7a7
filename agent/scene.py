"""What is going on of ours as the caller begins to speak, and what is done to our sound while it is not clear whether they speak to us."""

from typing import Final

from agent.commands import Command, Duck, Hold, Resume
from agent.heard import HeardReplies
from agent.history import History
from agent.items import Message
from agent.settings import PlaybackOwner
from agent.turns import Scene, TurnTaker
from agent.wording import Asked, asked_for
from streaming.events import SAMPLE_RATE, Audible

__all__ = ["Softener", "scene_at"]

_BEGUN_MS: Final = 400
"""Sound of a reply that nobody comments on yet: who speaks now goes on with what they were saying."""

_NEARLY_OVER_MS: Final = 1_000
"""Sound that is left of a question when people begin to answer it."""


def scene_at(at: int, turns: TurnTaker, history: History, heard: HeardReplies, owner: PlaybackOwner, now: int) -> Scene:
    """What is going on as speech begins at input position `at`, of which the Ear tells at session time `now`."""
    asked = asked_for(_last_words(history, heard))
    sounding = heard.sounding(now)
    if sounding is None:
        return Scene(asked=asked)
    response_id, spoken = sounding
    played = spoken.played(now)
    sample = max(0, played - (turns.listened - at) * spoken.rate // SAMPLE_RATE)
    begun = spoken.milliseconds(played) < _BEGUN_MS
    answered = spoken.ended and asked is not Asked.NOTHING and spoken.milliseconds(spoken.samples - played) < _NEARLY_OVER_MS
    over = Audible(response_id, sample, spoken.rate, at)
    holdable = owner is not PlaybackOwner.CLIENT
    return Scene(over, interruptible=spoken.interruptible, yields=begun or answered, holdable=holdable, asked=asked)


def _last_words(history: History, heard: HeardReplies) -> str:
    """What the agent said last, as far as it has been made."""
    last = next((item for item in reversed(history.items) if isinstance(item, Message) and item.role == "assistant"), None)
    if last is None:
        return ""
    spoken = heard.spoken(last.id)
    return " ".join(part.text or "" for part in last.content) if spoken is None else spoken.text


class Softener:
    """Where what has been sent can be taken back, our sound is lowered or held during an overlap."""

    def __init__(self, heard: HeardReplies) -> None:
        self._heard = heard
        # What was ordered last of the responses that sound.
        self._ordered: dict[str, type[Duck | Hold | Resume]] = {}

    def follow(self, turns: TurnTaker, owner: PlaybackOwner, now: int) -> list[Command]:
        """What the turns as they stand want of our sound."""
        audible = self._heard.interruptible(now) if owner is not PlaybackOwner.CLIENT else []
        wanted: type[Duck | Hold | Resume] = Hold if turns.holds else Duck if turns.lowers else Resume
        commands: list[Command] = [wanted(response_id) for response_id in audible if self._ordered.get(response_id, Resume) is not wanted]
        self._ordered = dict.fromkeys(audible, wanted)
        return commands
