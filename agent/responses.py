"""The responses of a session: the conversation's own, one after another, and those out of band beside it.

A response begins at a client's request or a turn's end, waits for the transcript it answers, is made, is sent, and ends once. One request
may wait until the sound of the conversation's response has left (design.md section 6, "Who owns playback").
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from agent.commands import AskAgent, Command, Cut, ErrorRaised
from agent.events import CreateResponse, PlaybackProgress, TurnDecided
from agent.heard import HeardReplies
from agent.history import History, RefusedError
from agent.items import Message
from agent.memory import Memory
from agent.plans import context_for, plan_response
from agent.prompt import asks_back, words_of
from agent.response import Phase, Response
from agent.settings import SessionKind, SessionSettings
from agent.tools import ToolCalls
from agent.transcripts import Transcripts
from streaming.events import (
    Abort,
    AudioReady,
    ReplyRestarted,
    Respond,
    RespondOptions,
    ResponseFinished,
    Say,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallReady,
)

__all__ = ["ResponseEvent", "Responses"]

_NOT_HEARD: Final = (
    "Sorry, I did not catch that.",
    "I still could not hear you well. Could you say it again?",
    "I can't make it out. Please say it once more, a little louder.",
)
"""Said where the caller's turn holds no words, or none to be sure of: asking back beats inventing an answer. Never the same twice in a
row."""

_MAX_AT_ONCE: Final = 16
"""Responses not yet done, those out of band included; the server may allow fewer. Each keeps a context and a share of the engine."""

ResponseEvent = TextDelta | AudioReady | ToolArgumentsDelta | ToolCallReady | ReplyRestarted | ResponseFinished | PlaybackProgress


class Responses:
    """`settings` are handed in where a response takes them: a later change does not touch it."""

    def __init__(
        self,
        conversation_id: str,
        history: History,
        heard: HeardReplies,
        transcripts: Transcripts,
        tools: ToolCalls,
        memory: Memory,
        make_id: Callable[[str], str],
    ) -> None:
        # The conversation's own response, while its `response.done` is due.
        self.current: Response | None = None
        # Whether a voice of ours has been heard in this session.
        self.spoke = False
        # The engine is being replaced: nothing of what the caller says is heard until the next one has caught up.
        self.deaf = False
        self._conversation_id = conversation_id
        self._history = history
        self._heard = heard
        self._transcripts = transcripts
        self._tools = tools
        self._memory = memory
        self._make_id = make_id
        # All responses whose `response.done` is due, by id.
        self._running: dict[str, Response] = {}
        # The audio item whose transcript the current response waits for; it has not been ordered yet.
        self._awaited: str | None = None
        # The item about which the agent's code is being asked, for the current response; it has not been ordered yet. And the last one it
        # was asked about: it is asked once.
        self._undecided: str | None = None
        self._asked: str | None = None
        # How often in a row the caller has been asked back.
        self._asked_back = 0
        # What was asked for when the current response was begun, and whether it was a turn's end that asked.
        self._request: CreateResponse | None = None
        self._unasked = False
        # A request for a response of the conversation that waits until the current one's audio has left.
        self._queued: CreateResponse | None = None

    # ---------------------------------------------------------------------------------------------------- beginning

    def create(self, request: CreateResponse, settings: SessionSettings) -> list[Command]:
        """A client asks for a response. Raises RefusedError."""
        if settings.kind is SessionKind.TRANSCRIPTION:
            raise RefusedError("invalid_event", "A transcription session makes no responses.")
        if not request.in_conversation:
            if len(self._running) >= _MAX_AT_ONCE:
                raise RefusedError("inference_rate_limit_exceeded", f"At most {_MAX_AT_ONCE} responses at once.")
            return self._start(request, settings)
        current = self.current
        if current is None:
            return self._start(request, settings)
        if current.phase is not Phase.SENDING or self._queued is not None:
            message = f"Conversation already has an active response in progress: {current.id}. Wait until the response is finished."
            raise RefusedError("conversation_already_has_active_response", message)
        context_for(request, settings, self._history, self._memory, self._heard.cut)  # refuses what it can refuse now
        self._queued = request
        return []

    def answer(self, settings: SessionSettings) -> list[Command]:
        """Answer the turn that has just ended: now, or after a reply that is not to be interrupted. What waits already answers it too."""
        if self.current is None:
            commands = self._start(CreateResponse(None), settings)
            self._unasked = True
            return commands
        self._queued = self._queued or CreateResponse(None)
        return []

    def prepare(self, settings: SessionSettings) -> tuple[str, RespondOptions] | None:
        """The id and the options of the reply that the turn being spoken would get; None where that waits for another reply, or is made
        from what is not there yet: words still due, or a history whose oldest item the turn will push out."""
        if self.current is not None or self._transcripts.any_due or self._history.is_full:
            return None
        return self._make_id("resp"), plan_response(CreateResponse(None), settings, None).options

    def adopt(self, response_id: str, settings: SessionSettings) -> list[Command]:
        """What has been prepared is the answer to the turn that has just ended; only while there is no other. `Adopt` is to follow."""
        assert self.current is None
        self._tools.reply_ordered()
        self._asked_back = 0
        return self._begin(self._new(CreateResponse(None), settings, response_id))

    def say(self, words: str, settings: SessionSettings, *, interruptible: bool = True) -> list[Command]:
        """Fixed words as the conversation's response; only while it has none."""
        assert self.current is None
        return self._start(CreateResponse(None, interruptible=interruptible), settings, words)

    def start_queued(self, settings: SessionSettings) -> list[Command]:
        """Begin the response that waits, if its time has come."""
        if self._queued is None or self.current is not None:
            return []
        request, self._queued = self._queued, None
        try:
            return self._start(request, settings)
        except RefusedError as refused:  # an item that it names has been deleted since
            return [ErrorRaised(refused.code, refused.message, refused.param, request.event_id)]

    def answer_tools(self, settings: SessionSettings) -> list[Command]:
        """Go on with what the server's tools gave, if that is due."""
        if self.current is not None or self._queued is not None:
            return []
        words = self._tools.take_owed()
        if words is None:
            return []
        if words:
            return self.say(words, settings)
        return self._start(CreateResponse(None, tool_choice=self._tools.choice), settings)

    def decided(self, event: TurnDecided, settings: SessionSettings, now: int, *, ending: bool) -> list[Command]:
        """The agent's code has said how the caller is answered. Nothing where they have gone on; where the call ends only fixed words."""
        current = self.current
        if current is None or self._undecided != event.item_id:
            return []
        if ending and not event.say:
            return self._cancel(current, "turn_detected", now)
        self._undecided = None
        if self._request is not None:  # made again, as another agent may have taken over
            current.plan = plan_response(self._request, settings, current.plan.options.context)
        if event.tool:
            current.plan = replace(current.plan, options=replace(current.plan.options, tool_choice=event.tool))
        return [self._order(current, event.say or None)]

    def go_on_without(self, item_id: str) -> list[Command]:
        """The transcript of this item is awaited no more: it is there, or the item is gone."""
        if self._awaited != item_id or self.current is None:
            return []
        self._awaited = None
        return [self._order(self.current)]

    def leave(self, item_id: str, now: int) -> list[Command]:
        """There was nobody to answer in this item: the response that a turn's end began for it ends unsaid. What a client asked for, or
        earlier words of the caller's wait for, goes on."""
        asks = asks_back(self._history.items, self._heard.cut, self._transcripts.unclear)
        if self._awaited != item_id or self.current is None or not self._unasked or not asks:
            return self.go_on_without(item_id)
        return self._cancel(self.current, "turn_detected", now)

    def go_on_unheard(self) -> list[Command]:
        """Transcripts will take their time, for the engine is being replaced: what is ordered without them can be excused to the caller at
        once, and waits for the words there."""
        self.deaf = True
        return [] if self._awaited is None else self.go_on_without(self._awaited)

    def _new(self, request: CreateResponse, settings: SessionSettings, response_id: str | None = None) -> Response:
        context = context_for(request, settings, self._history, self._memory, self._heard.cut)
        plan = plan_response(request, settings, context)
        return Response(response_id or self._make_id("resp"), self._conversation_id, plan, self._history, self._make_id)

    def _start(self, request: CreateResponse, settings: SessionSettings, words: str | None = None) -> list[Command]:
        """Begin a response; `words` are to be said where given, else the model's are."""
        response = self._new(request, settings)
        created = self._begin(response)
        if response is self.current:
            self._request, self._unasked = request, False
        last = self._history.last
        follows = words is None and not self.deaf and response.plan.options.context is None
        if follows and last is not None and self._awaits_words(last.id, response, settings):
            self._awaited = last.id
            return created
        return [*created, self._order(response, words)]

    def _awaits_words(self, item_id: str, response: Response, settings: SessionSettings) -> bool:
        """Whether the final text of an item is due and waited for. Where the model hears it is not, unless the agent's code is asked about
        it, or there may be no words in it to answer: none have been found so far."""
        if not self._transcripts.is_due(item_id):
            return False
        return not settings.model_hears or response.plan.asks_agent or not self._transcripts.is_worded(item_id)

    def _begin(self, response: Response) -> list[Command]:
        self._running[response.id] = response
        if response.plan.in_conversation:
            self.current = response
        return response.created()

    def _order(self, response: Response, words: str | None = None) -> Command:
        """Ask the engine for the reply, or first the agent's code; a turn without words is asked back, not answered."""
        options = response.plan.options
        if words is None and options.context is None and asks_back(self._history.items, self._heard.cut, self._transcripts.unclear):
            words = _NOT_HEARD[self._asked_back % len(_NOT_HEARD)]
            self._asked_back += 1
        if words is not None:
            return Say(response.id, words, options)
        if response.plan.asks_agent and (question := self._question()) is not None:
            self._undecided = self._asked = question.item_id
            return question
        if response.plan.in_conversation:
            self._tools.reply_ordered()
            self._asked_back = 0
        return Respond(response.id, options)

    def _question(self) -> AskAgent | None:
        """What the agent's code is to be asked: about words of the caller that it has not been asked about."""
        last = self._history.last
        if not isinstance(last, Message) or last.role != "user" or last.id == self._asked:
            return None
        words = words_of(last)
        return AskAgent(last.id, words) if words else None

    # -------------------------------------------------------------------------------------------------------- going on

    def handle(self, event: ResponseEvent, now: int) -> list[Command]:
        """What the engine and playout report of a response."""
        response = self._running.get(event.response_id)
        if response is None:
            if isinstance(event, PlaybackProgress):  # made and sent, but perhaps still playing
                self._heard.report(event.response_id, event.sent, event.played, now)
            return []  # stale: the response is over
        commands = self._advance(response, event, now)
        item_id = response.message_id
        if response.plan.in_conversation and response.plan.output_audio and item_id is not None and item_id in self._history:
            self._heard.begin(response.id, item_id, response.spoken)
        if response.phase is Phase.DONE:
            self._forget(response)
            self._heard.settle(response.id, now)
        return commands

    def _advance(self, response: Response, event: ResponseEvent, now: int) -> list[Command]:
        match event:
            case PlaybackProgress(_, sent, played):
                return response.progress(sent, played, now)
            case _ if response.phase is not Phase.GENERATING:
                return []
            case TextDelta():
                return response.text(event)
            case ReplyRestarted(_, text_end):
                return response.restarted(text_end)
            case AudioReady():
                self.spoke = True
                return response.audio(event)
            case ToolArgumentsDelta(name=name):
                # What the server runs is told when it is run.
                return response.tool_arguments(event) if response.plan.server_tool(name) is None else []
            case ToolCallReady(name=name):
                tool = response.plan.server_tool(name)
                return response.tool_call(event) if tool is None else self._tools.call(response, event, tool, now)
            case ResponseFinished():
                return response.finished(event)

    # ---------------------------------------------------------------------------------------------------------- ending

    def interrupt(self, settings: SessionSettings, now: int) -> list[Command]:
        """The caller has the floor: whatever of the conversation sounds, is being made or waits ends, and counts as said only as far as
        it was heard; but for what is not interruptible, and then what waits behind it waits on."""
        commands: list[Command] = []
        for response_id in self._heard.interruptible(now):
            if response_id not in self._running:
                self._heard.stop(response_id, now)
                commands.append(Cut(response_id))
        if self.current is not None:
            if not self.current.plan.interruptible:
                return commands
            commands += self._cancel(self.current, "turn_detected", now)
        if (waiting := self._take_queued(settings)) is not None:
            # Begun and cancelled, so that its client is not left waiting.
            commands += [*waiting.created(), *waiting.cancel("turn_detected")]
        return commands

    def cancel(self, response_id: str | None, now: int) -> list[Command]:
        """The client cancels a response, the conversation's with None; what waits for that one begins. Raises RefusedError."""
        response = self.current if response_id is None else self._running.get(response_id)
        if response is None:
            raise RefusedError("response_cancel_not_active", "Cancellation failed: no active response found")
        return self._cancel(response, "client_cancelled", now)

    def is_running(self, response_id: str) -> bool:
        """Whether its `response.done` is due."""
        return response_id in self._running

    def clear_output(self, now: int) -> list[Command]:
        """The client wants silence: what sounds ends here, and what is still being made of it is cancelled."""
        commands: list[Command] = []
        for response_id in self._heard.audible(now):
            if response_id in self._running:
                commands += self._cancel(self._running[response_id], "client_cancelled", now)
            else:
                self._heard.stop(response_id, now)
                commands.append(Cut(response_id))
        return commands

    def fail(self, error: str, settings: SessionSettings, now: int) -> list[Command]:
        """The engine is gone: everything that waits for it ends."""
        commands: list[Command] = []
        for response in tuple(self._running.values()):
            self._heard.stop(response.id, now, flushed=False)
            self._forget(response)
            commands += [Cut(response.id), *response.fail(error)]
        if (waiting := self._take_queued(settings)) is not None:
            commands += [*waiting.created(), *waiting.fail(error)]
        return commands

    def _cancel(self, response: Response, reason: str, now: int) -> list[Command]:
        """End a response that is being made or sent."""
        ordered = response is not self.current or (self._awaited is None and self._undecided is None)
        self._heard.stop(response.id, now)
        self._forget(response)
        return [*([Abort(response.id)] if ordered else []), Cut(response.id), *response.cancel(reason)]

    def _take_queued(self, settings: SessionSettings) -> Response | None:
        """The response that waits, never to run: its input is looked at no more."""
        request, self._queued = self._queued, None
        return None if request is None else self._new(replace(request, input=()), settings)

    def _forget(self, response: Response) -> None:
        """Its `response.done` is out. What sounds on is known to `_heard`."""
        del self._running[response.id]
        if response is self.current:
            self.current = self._awaited = self._undecided = None
