"""When the agent speaks by itself: the greeting, prompts to a caller who says nothing, the goodbye after them, and, where it may, into a
turn that does not end.

It decides, and `agent.conversation` says. Silence is counted by one timer, for the protocol's `idle_timeout_ms` (protocols.md 1.8 F) and
for `Initiative.idle_ms`: it runs while the last word was ours and has been heard.
"""

from dataclasses import dataclass
from typing import Final

from agent.history import History
from agent.idle import IdleTimer
from agent.items import Message
from agent.prompt import words_of
from agent.settings import Initiative, PlaybackOwner, ServerVad, SessionKind, SessionSettings
from streaming.events import SAMPLE_RATE

__all__ = ["Initiator", "Prompt"]

_STILL_THERE: Final = "Are you still there?"
"""Said when the client's `idle_timeout_ms` has passed and the session has no prompts of its own."""

_GREETING_WAIT: Final = SAMPLE_RATE // 2
"""Ticks that a client has to say in `session.update` how it wants to hear us, before it is greeted."""

_LONG_TALK: Final = 20 * SAMPLE_RATE
"""A turn of the caller this long has not yielded. Turns of telephone calls last a few seconds; a story told at length half a minute."""

_BREATH: Final = SAMPLE_RATE // 5
"""A pause that may be spoken into: between words of running speech they are shorter, at the end of a phrase longer."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is said to a caller who says nothing. Where it `becomes_turn` their silence is an item of the conversation, as the client's
    `idle_timeout_ms` wants."""

    words: str
    becomes_turn: bool = False


class Initiator:
    """One session's."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._idle = IdleTimer()
        # When the greeting is due, if there is one; None once it has been decided.
        self._greets_at: int | None = None
        # Prompts said since the caller's last words, which were this item.
        self._prompted = 0
        self._last_words = ""
        # The goodbye to a silent caller is being said.
        self._parting = False
        # Where the turn that is being spoken began.
        self._turn_start = 0
        # What the agent's code wants said into the turn; None for nothing, "" for a reply of the model.
        self._wanted: str | None = None

    def deadline(self, settings: SessionSettings, *, quiet: bool) -> int | None:
        """When a `Tick` is wanted. Where it is not `quiet` nobody is greeted, and a greeting that is due waits without one."""
        greets_at = self._greets_at if settings.initiative.greeting and quiet else None
        return min((time for time in (greets_at, self._idle.deadline) if time is not None), default=None)

    # -- the greeting

    def opened(self, settings: SessionSettings, now: int) -> None:
        """The session begins. Where the transport is ours nobody has anything to say about its sound first."""
        self._greets_at = now + (0 if settings.playback is PlaybackOwner.SERVER else _GREETING_WAIT)

    def updated(self, now: int) -> None:
        """The client has said how it wants to hear us."""
        if self._greets_at is not None:
            self._greets_at = now

    def take_greeting(self, settings: SessionSettings, now: int, *, quiet: bool) -> str:
        """What to greet with now; "" for nothing. Who has spoken, or been spoken to, is not greeted any more."""
        if self._greets_at is None:
            return ""
        if not quiet or any(isinstance(item, Message) for item in self._history.items):
            self._greets_at = None
            return ""
        if now < self._greets_at:
            return ""
        self._greets_at = None
        return settings.initiative.greeting if settings.kind is SessionKind.REALTIME else ""

    # -- silence

    def watch(self, settings: SessionSettings, *, waiting: bool, now: int) -> None:
        """`waiting` says whether, as of `now`, the caller is to speak and can hear nothing of us."""
        last = self._history.last
        ours = isinstance(last, Message) and last.role == "assistant"
        self._idle.watch(self._timeout(settings), waiting=waiting and ours and not self._has_said_all(settings.initiative), now=now)

    def _timeout(self, settings: SessionSettings) -> int | None:
        detection, ours = settings.turn_detection, settings.initiative
        if isinstance(detection, ServerVad) and detection.idle_timeout_ms is not None:
            return detection.idle_timeout_ms
        return ours.idle_ms if ours.idle_prompts and settings.kind is SessionKind.REALTIME else None

    def _has_said_all(self, ours: Initiative) -> bool:
        """Whether nothing is left to be said to a caller who still says nothing: there is nothing to wait for."""
        every = len(ours.idle_prompts) + bool(ours.goodbye)
        return bool(ours.idle_prompts) and self._prompted >= every and self._words_id() == self._last_words

    def take_prompt(self, settings: SessionSettings, now: int) -> Prompt | None:
        """What to say to a caller who has been silent for too long; None while they have not."""
        if not self._idle.expired(now):
            return None
        last_words = self._words_id()
        if last_words != self._last_words:
            self._last_words, self._prompted = last_words, 0
        ours, detection = settings.initiative, settings.turn_detection
        becomes_turn = isinstance(detection, ServerVad) and detection.idle_timeout_ms is not None
        number, self._prompted = self._prompted, self._prompted + 1
        if number < len(ours.idle_prompts):
            return Prompt(ours.idle_prompts[number], becomes_turn=becomes_turn)
        if ours.idle_prompts:
            self._parting = number == len(ours.idle_prompts) and bool(ours.goodbye)
            return Prompt(ours.goodbye) if self._parting else None
        return Prompt(_STILL_THERE, becomes_turn=becomes_turn)

    def _words_id(self) -> str:
        """The caller's last item with words in it."""
        for item in reversed(self._history.items):
            if isinstance(item, Message) and item.role == "user" and (words_of(item) or "").strip():
                return item.id
        return ""

    def take_parting(self, *, caller_speaks: bool, silent: bool) -> bool:
        """Whether the goodbye has been heard and not answered: the call is over. A caller who speaks keeps it."""
        if caller_speaks:
            self._parting = False
        parted = self._parting and silent
        self._parting = self._parting and not silent
        return parted

    # -- interjections

    def turn_started(self, start: int) -> None:
        """The caller's turn began at input position `start`."""
        self._turn_start = start

    def want_turn(self, words: str) -> None:
        """The agent's code wants to speak into the caller's turn."""
        self._wanted = words

    def take_interjection(self, ours: Initiative, paused_at: int | None, listened: int) -> str | None:
        """What to say into the caller's turn, now that they draw breath: "" for a reply of the model, None for nothing. `paused_at` is
        where their pause began, None where they have no turn or speak."""
        if not ours.interjects or paused_at is None or listened - paused_at < _BREATH:
            return None
        words, self._wanted = self._wanted, None
        return "" if words is None and paused_at - self._turn_start >= _LONG_TALK else words

    def turn_ended(self) -> str:
        """The caller has yielded: what was to be said into their turn ("" for nothing) needs no interjection any more."""
        words, self._wanted = self._wanted, None
        return words or ""
