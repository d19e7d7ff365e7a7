"""One session's speculation: the reply to the open turn, prepared in a pause as if that ended it, and withheld until it does.

Nothing of it reaches the client, the history or playout before the turn has ended in that very pause. If the caller goes on, or anything
changes that the reply was made from, it is dropped, and the reply to whatever the turn becomes is made as if there had been none.
"""

from dataclasses import dataclass, field
from typing import Final

from agent.commands import Command
from agent.events import CreateResponse
from agent.history import History
from agent.plans import plan_response
from agent.responses import Responses
from agent.settings import SessionSettings
from agent.transcripts import Transcripts
from agent.turns import TurnEnded, TurnTaker
from streaming.events import (
    AudioReady,
    ContextMessage,
    Drop,
    FinishReason,
    ResponseFinished,
    Speculate,
    TextDelta,
    ToolCallReady,
    TranscriptProvisional,
)

__all__ = ["Prepared", "Speculation", "WithheldEvent"]

_MOST_WITHHELD: Final = 1_000
"""Events kept for one speculation: a clause and its sound are tens of them, a short reply made whole a few hundred. More is a fault."""

WithheldEvent = TextDelta | AudioReady | ToolCallReady | ResponseFinished


@dataclass(slots=True)
class Prepared:
    """A reply being prepared under `response_id` to a turn of these `words`, `made_from` the settings and belief of that moment. `failed`
    says that nothing will come of it."""

    response_id: str
    words: TranscriptProvisional
    made_from: tuple[SessionSettings, tuple[ContextMessage, ...] | None]
    events: list[WithheldEvent] = field(default_factory=list)
    failed: bool = False


class Speculation:
    """At most one at a time; each is ordered once, and ends in one `Adopt` or one `Drop`."""

    def __init__(self, turns: TurnTaker, history: History, transcripts: Transcripts, responses: Responses) -> None:
        self._turns = turns
        self._history = history
        self._transcripts = transcripts
        self._responses = responses
        self._prepared: Prepared | None = None
        # What was withheld of a reply that has been adopted, until `release`.
        self._released: list[WithheldEvent] = []

    def suppose(
        self, words: TranscriptProvisional, settings: SessionSettings, believed: tuple[ContextMessage, ...] | None
    ) -> list[Command]:
        """If the turn ends in this pause it has these words: prepare the reply to them, where one may be. What was prepared for others is
        dropped; what is being prepared for the same goes on."""
        if not self._turns.pauses(words.item_id, words.at):
            return []  # it came late
        if self._prepared is not None and self._prepared.words.text == words.text:
            return []
        dropped = self._drop()
        if not words.text.strip() or not self._may_be(settings):
            return dropped
        prepared = Prepared(self._responses.make_id(), words, (settings, believed))
        options = plan_response(CreateResponse(None), settings, None).options
        self._prepared = prepared
        return [*dropped, Speculate(prepared.response_id, words.item_id, words.text, options)]

    def withhold(self, event: WithheldEvent) -> bool:
        """Keep what the engine tells of the speculation; False where it is of something else."""
        prepared = self._prepared
        if prepared is None or event.response_id != prepared.response_id:
            return False
        match event:
            case ToolCallReady():
                prepared.failed = True  # an engine must not; the call is to be made after the turn, or not at all
            case ResponseFinished(_, reason) if reason not in (FinishReason.STOP, FinishReason.LENGTH):
                prepared.failed = True
            case _ if len(prepared.events) >= _MOST_WITHHELD:
                prepared.failed = True
            case _:
                prepared.events.append(event)
        return True

    def review(self, settings: SessionSettings, believed: tuple[ContextMessage, ...] | None) -> list[Command]:
        """Whatever has happened, `settings` and `believed` are in force now: drop what would no longer be the reply."""
        prepared = self._prepared
        if prepared is None:
            return []
        same_turn = self._turns.pauses(prepared.words.item_id, prepared.words.at)
        same_reply = prepared.made_from == (settings, believed) and self._may_be(settings)
        return [] if same_turn and same_reply and not prepared.failed else self._drop()

    def adopt(self, turn: TurnEnded) -> Prepared | None:
        """The turn has ended. The reply prepared for it, if there is one, which is then to begin; `release` gives what has come of it. A
        turn that the client ends may hold more than the words of the pause."""
        prepared = self._prepared
        if prepared is None or not turn.detected or prepared.words.item_id != turn.item_id:
            return None
        self._prepared, self._released = None, prepared.events
        return prepared

    def release(self) -> list[WithheldEvent]:
        """What was withheld of the reply that has just been adopted, in order; to be handled now."""
        released, self._released = self._released, []
        return released

    def _may_be(self, settings: SessionSettings) -> bool:
        """Whether a turn that ended now would be answered at once, by the model, from the belief as it stands."""
        return (
            settings.speculation
            and settings.answers_turns
            and settings.tool_choice.mode in ("auto", "none")
            and self._responses.current is None
            and not self._transcripts.any_due
            and not self._history.is_full  # or the turn would push the oldest item out
        )

    def _drop(self) -> list[Command]:
        prepared, self._prepared = self._prepared, None
        return [] if prepared is None else [Drop(prepared.response_id)]
