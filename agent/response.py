"""The life of one response, from `response.created` to its one `response.done`, in the order of protocols.md 1.8 to 1.10.

It turns what the engine and playout report into notices for the client; what that means for turns and history is the conversation's affair.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from agent.commands import (
    ArgumentsDelta,
    ArgumentsDone,
    Command,
    ContentPartAdded,
    ContentPartDone,
    ItemAdded,
    ItemDone,
    OpenPlayout,
    OutputAudioDone,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    OutputTranscriptDelta,
    OutputTranscriptDone,
    PartRef,
    Release,
    ResponseCreated,
    ResponseDone,
    ResponseSnapshot,
    ResponseStatus,
    ServerArgumentsDelta,
    ServerArgumentsDone,
    ServerCallMoved,
)
from agent.heard import SpokenText
from agent.history import History
from agent.items import ApprovalRequest, ContentPart, FunctionCall, Item, ItemStatus, Message, PartKind, ServerCall, with_status
from agent.settings import AudioFormat, ServerTool
from streaming.events import AudioReady, FinishReason, RespondOptions, ResponseFinished, TextDelta, ToolArgumentsDelta, ToolCallReady, Usage

__all__ = ["Phase", "Response", "ResponsePlan"]


class Phase(Enum):
    """How far a response has come."""

    GENERATING = "the engine is making it"
    SENDING = "made; its audio has not all left"
    DONE = "the client has its response.done"


_MOVES: Final[Mapping[Phase, tuple[Phase, ...]]] = {
    Phase.GENERATING: (Phase.SENDING, Phase.DONE),
    Phase.SENDING: (Phase.DONE,),
    Phase.DONE: (),
}


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """What was asked for: the session's settings with the request's on top."""

    in_conversation: bool
    output_audio: bool
    output_format: AudioFormat
    voice: str
    max_output_tokens: int | None
    temperature: float | None
    metadata: tuple[tuple[str, str], ...] | None
    interruptible: bool
    options: RespondOptions
    server_tools: tuple[ServerTool, ...] = ()
    # Whether the agent's code is asked before it is made.
    asks_agent: bool = False

    def server_tool(self, name: str) -> ServerTool | None:
        """The tool of this name that the server runs."""
        return next((tool for tool in self.server_tools if tool.spec.name == name), None)


class Response:
    """One response. Every method returns what to order now; after `phase` is DONE none of them does anything."""

    def __init__(self, response_id: str, conversation_id: str, plan: ResponsePlan, history: History, make_id: Callable[[str], str]) -> None:
        self.id = response_id
        self.plan = plan
        self.phase = Phase.GENERATING
        # The reply's words against its samples; of a text reply, only the words.
        self.spoken = SpokenText(plan.output_format.rate, interruptible=plan.interruptible)
        self._conversation_id = conversation_id if plan.in_conversation else None
        self._history = history
        self._make_id = make_id
        self._output: list[Item] = []
        # The message being said, if there is one, and how many characters of it the client has been given.
        self._part: PartRef | None = None
        self._given = 0
        self._calls: set[int] = set()
        # Calls of the client's functions whose arguments are being written, by index.
        self._writing: dict[int, tuple[PartRef, FunctionCall]] = {}
        self._finish: ResponseFinished | None = None

    @property
    def message_id(self) -> str | None:
        """The id of its message item, once there is one."""
        return self._part.item_id if self._part else None

    @property
    def called_client(self) -> bool:
        """Whether it calls a function of the client's."""
        return any(isinstance(item, FunctionCall) for item in self._output)

    def created(self) -> list[Command]:
        """It begins."""
        return [ResponseCreated(self._snapshot(ResponseStatus.IN_PROGRESS))]

    def text(self, delta: TextDelta) -> list[Command]:
        """Words were decoded."""
        if not delta.text:
            return []
        commands = self._open_message()
        self.spoken.text += delta.text
        if not self.plan.output_audio and self._part is not None:
            self._given = len(self.spoken.text)
            commands.append(OutputTextDelta(self._part, delta.text))
        return commands

    def restarted(self, text_end: int) -> list[Command]:
        """What was decoded beyond `text_end` will never sound: it is decoded anew."""
        self.spoken.text = self.spoken.text[:text_end]
        return []

    def audio(self, ready: AudioReady) -> list[Command]:
        """A clause was synthesised: it may leave."""
        if not self.plan.output_audio:
            return []  # nobody would send it, and the reply would wait for that
        commands = self._open_message()
        self.spoken.add(ready)
        return [*commands, Release(self.id, self.spoken.samples)]

    def tool_call(self, ready: ToolCallReady) -> list[Command]:
        """The model calls a function."""
        if ready.index in self._calls:
            return []
        # What has been told of the arguments is their beginning.
        written = self._writing[ready.index][1].arguments if ready.index in self._writing else ""
        rest = ready.arguments[len(written) :]
        commands = self.tool_arguments(ToolArgumentsDelta(self.id, ready.index, ready.name, rest)) if rest or not written else []
        self._calls.add(ready.index)
        part, call = self._writing.pop(ready.index)
        done = replace(call, arguments=ready.arguments, status=ItemStatus.COMPLETED)
        commands.append(ArgumentsDone(part, call.call_id, ready.name, ready.arguments))
        return commands + self._end_item(part.output_index, done)

    def tool_arguments(self, written: ToolArgumentsDelta) -> list[Command]:
        """The model writes more of a call of a client's function."""
        if written.index in self._calls:
            return []
        commands: list[Command] = []
        if written.index not in self._writing:
            call = FunctionCall(self._make_id("item"), self._make_id("call"), written.name, "", ItemStatus.IN_PROGRESS)
            commands, index = self._add_item(call)
            self._writing[written.index] = PartRef(self.id, call.id, index, 0), call
        part, call = self._writing[written.index]
        self._writing[written.index] = part, replace(call, arguments=call.arguments + written.delta)
        return [*commands, ArgumentsDelta(part, call.call_id, written.delta)]

    def _give_up_calls(self) -> list[Command]:
        """The calls whose arguments have not been written to their end never will be."""
        unfinished = [(part.output_index, with_status(call, ItemStatus.INCOMPLETE)) for part, call in self._writing.values()]
        self._writing.clear()
        return [command for index, call in unfinished for command in self._end_item(index, call)]

    def server_call(self, ready: ToolCallReady, tool: ServerTool) -> tuple[list[Command], ServerCall | ApprovalRequest | None, int]:
        """The model calls a tool that the server runs: the call, or the request for its approval, with its output index (-1 where the
        client is not told of it); None for a call that has been made. How it ends is the affair of `agent.tools`."""
        if ready.index in self._calls:
            return [], None, -1
        self._calls.add(ready.index)
        item_id, label = self._make_id("item"), tool.server_label
        call: ServerCall | ApprovalRequest = ServerCall(item_id, label, ready.name, ready.arguments, ItemStatus.IN_PROGRESS)
        if tool.needs_approval:
            call = ApprovalRequest(item_id, label, ready.name, ready.arguments)
        if not self._history.shows(call):
            self._history.add(call)
            return [], call, -1
        if isinstance(call, ApprovalRequest):
            commands, index = self._add_item(call)
            return [*commands, *self._end_item(index, call)], call, index
        commands, index = self._add_item(replace(call, arguments=""))
        self._history.replace(call)
        made = self._output[index] = with_status(call, ItemStatus.COMPLETED)
        part = PartRef(self.id, item_id, index, 0)
        commands += [ServerArgumentsDelta(part, call.arguments), ServerArgumentsDone(part, call.arguments)]
        return [*commands, OutputItemDone(self.id, index, made), ServerCallMoved(item_id, index, "in_progress")], call, index

    def progress(self, sent: int, played: int, now: int) -> list[Command]:
        """Sound has left, or was heard: the words that left with it go out too."""
        self.spoken.report(sent, played, now)
        if self.phase is Phase.DONE:
            return []
        return [*self._give(self.spoken.text_end(sent)), *self._complete()]

    def finished(self, finish: ResponseFinished) -> list[Command]:
        """The engine has made all of it."""
        self._finish = finish
        self._move(Phase.SENDING)
        return self._complete()

    def cancel(self, reason: str) -> list[Command]:
        """It ends here: `reason` is turn_detected or client_cancelled."""
        self._move(Phase.DONE)
        commands = [*self._close_message(ItemStatus.INCOMPLETE), *self._give_up_calls()]
        return [*commands, ResponseDone(self._snapshot(ResponseStatus.CANCELLED, reason, None, Usage()))]

    def fail(self, error: str) -> list[Command]:
        """It ends here, through no fault of the client."""
        self._move(Phase.DONE)
        commands = [*self._close_message(ItemStatus.INCOMPLETE), *self._give_up_calls()]
        return [*commands, ResponseDone(self._snapshot(ResponseStatus.FAILED, None, error, Usage()))]

    def _complete(self) -> list[Command]:
        """The end, once everything has been made and everything made has left."""
        finish = self._finish
        if finish is None or self.spoken.sent < self.spoken.samples:
            return []
        if finish.reason in (FinishReason.ERROR, FinishReason.ABORTED):
            # A response that we aborted is not here any more, so this one was stopped by the engine.
            return self.fail(finish.error or "the reply could not be made")
        cut = finish.reason is FinishReason.LENGTH
        commands = [
            *self._give(len(self.spoken.text)),
            *self._close_message(ItemStatus.INCOMPLETE if cut else ItemStatus.COMPLETED),
            *self._give_up_calls(),
        ]
        self._move(Phase.DONE)
        status = ResponseStatus.INCOMPLETE if cut else ResponseStatus.COMPLETED
        return [*commands, ResponseDone(self._snapshot(status, "max_output_tokens" if cut else None, None, finish.usage))]

    def _move(self, phase: Phase) -> None:
        assert phase in _MOVES[self.phase], f"{self.id}: from {self.phase.name} to {phase.name}"
        self.phase = phase

    def _give(self, text_end: int) -> list[Command]:
        """Transcript up to character `text_end`."""
        if self._part is None or not self.plan.output_audio or text_end <= self._given:
            return []
        delta, self._given = self.spoken.text[self._given : text_end], text_end
        return [OutputTranscriptDelta(self._part, delta)] if delta else []

    def _open_message(self) -> list[Command]:
        """The message item, with the first word or sound."""
        if self._part is not None:
            return []
        message = Message(self._make_id("item"), "assistant", (), ItemStatus.IN_PROGRESS)
        commands, index = self._add_item(message)
        self._part = PartRef(self.id, message.id, index, 0)
        commands.append(ContentPartAdded(self._part, self._kind))
        if self.plan.output_audio:
            commands.append(OpenPlayout(self._part, self.plan.output_format))
        return commands

    def _close_message(self, status: ItemStatus) -> list[Command]:
        if self._part is None:
            return []
        part, text = self._part, self.spoken.text[: self._given]
        message = Message(part.item_id, "assistant", (ContentPart(self._kind, text),), status)
        audio: list[Command] = [OutputAudioDone(part), OutputTranscriptDone(part, text)]
        closing = audio if self.plan.output_audio else [OutputTextDone(part, text)]
        return [*closing, ContentPartDone(part, self._kind, text), *self._end_item(part.output_index, message)]

    def _add_item(self, item: Item) -> tuple[list[Command], int]:
        """A new output item, in the conversation too unless out of band; with its output index."""
        self._output.append(item)
        index = len(self._output) - 1
        commands: list[Command] = [OutputItemAdded(self.id, index, item)]
        if self.plan.in_conversation:
            commands.append(ItemAdded(item, self._history.add(item)))
        return commands, index

    def _end_item(self, index: int, item: Item) -> list[Command]:
        self._output[index] = item
        commands: list[Command] = []
        if self.plan.in_conversation and item.id in self._history:
            self._history.replace(item)
            commands.append(ItemDone(item, self._history.previous_id(item.id)))
        return [*commands, OutputItemDone(self.id, index, item)]

    @property
    def _kind(self) -> PartKind:
        return PartKind.OUTPUT_AUDIO if self.plan.output_audio else PartKind.OUTPUT_TEXT

    def _snapshot(
        self, status: ResponseStatus, reason: str | None = None, error: str | None = None, usage: Usage | None = None
    ) -> ResponseSnapshot:
        running = status is ResponseStatus.IN_PROGRESS
        # A call that was complete stays so, whatever became of the rest.
        output = tuple(
            with_status(item, ItemStatus.INCOMPLETE) if item.status is ItemStatus.IN_PROGRESS else item
            for item in (() if running else self._output)
        )
        return ResponseSnapshot(
            id=self.id,
            status=status,
            output=output,
            conversation_id=self._conversation_id,
            output_audio=self.plan.output_audio,
            output_format=self.plan.output_format,
            voice=self.plan.voice,
            max_output_tokens=self.plan.max_output_tokens,
            temperature=self.plan.temperature,
            metadata=self.plan.metadata,
            reason=reason,
            error=error,
            usage=usage,
        )
