"""One session whose language model is a chat endpoint: its replies are asked for there and spoken by the voice here."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.engine_link import Fact
from server.upstream.chat_client import ChatClient, ChatOptions
from server.upstream.chat_reply import ChatReply, ReplyDoors
from server.upstream.chat_wire import request_body
from server.upstream.link import Local, Spoken
from server.upstream.tasks import Tasks
from server.upstream.transcripts import Transcripts
from streaming.audio import AudioFrame
from streaming.events import (
    Abort,
    Adopt,
    ContextMessage,
    Drop,
    EngineFailed,
    EngineOrder,
    FinishReason,
    Respond,
    RespondOptions,
    ResponseFinished,
    SetHistory,
    Speculate,
    StartTurn,
)

__all__ = ["ChatSession", "ChatUpstream"]


class ChatUpstream:
    """`server.upstream.link.Upstream`: a chat endpoint."""

    def __init__(self, options: ChatOptions) -> None:
        self._options = options
        self._client = ChatClient(options)
        # What sessions have under way; each ends when its session lets go.
        self._tasks = Tasks()

    def open(self, local: Local) -> "ChatSession":
        """A session begins."""
        return ChatSession(local, self._client, self._options, self._tasks)

    async def stop(self) -> None:
        """Let go of everything."""
        await self._tasks.stop()
        await self._client.close()


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A speculation that was not asked for: it is if it is adopted."""

    options: RespondOptions
    context: tuple[ContextMessage, ...]


class ChatSession:
    """`server.upstream.link.UpstreamSession`."""

    def __init__(self, local: Local, client: ChatClient, options: ChatOptions, tasks: Tasks) -> None:
        self._local = local
        self._client = client
        self._options = options
        self._tasks = tasks
        self._transcripts = Transcripts()
        self._history: tuple[ContextMessage, ...] = ()
        # Replies whose end has not been told.
        self._replies: dict[str, ChatReply] = {}
        self._prepared: dict[str, _Prepared] = {}

    def feed(self, frame: AudioFrame) -> None:
        """The engine here has it too: nothing is left to do."""

    def order(self, order: EngineOrder) -> None:
        """Do it, or pass it on."""
        self._transcripts.note(order)
        match order:
            case SetHistory(messages):
                self._history = messages
                self._local.order(SetHistory(()))  # so that it forgets the words of what is over
            case Respond(response_id, options):
                self._begin(response_id, options, self._history if options.context is None else options.context)
            case Speculate(response_id, item_id, text, options):
                context = (*self._history, ContextMessage("user", item_id, text))
                if self._options.speculates:
                    self._begin(response_id, options, context, speculative=True)
                else:
                    self._prepared[response_id] = _Prepared(options, context)
            case Adopt(response_id):
                self._adopt(response_id)
            case Abort(response_id) | Drop(response_id):
                self._abort(response_id, order)
            case StartTurn():
                self._tasks.begin(self._client.warm(), f"{self._local.session_id}-warm")
                self._local.order(order)
            case _:
                self._local.order(order)

    def hear(self, fact: Fact) -> None:
        """Of replies that are spoken for us the reply is told, the rest is the conversation's."""
        self._transcripts.note(fact)
        if isinstance(fact, EngineFailed):
            self.close()
        if isinstance(fact, Spoken):
            reply = self._replies.get(fact.response_id)
            if reply is not None:
                reply.hear(fact)
                return
        self._local.tell(fact)

    def close(self) -> None:
        """Close every request."""
        for reply in self._replies.values():
            reply.close()
        self._replies.clear()
        self._prepared.clear()

    def _begin(self, response_id: str, options: RespondOptions, context: Sequence[ContextMessage], *, speculative: bool = False) -> None:
        doors = ReplyDoors(self._local, self._client.reply, lambda: self._replies.pop(response_id, None))
        reply = self._replies[response_id] = ChatReply(doors, response_id, options, self._options.apology, speculative=speculative)

        async def ask() -> bytes:
            await self._transcripts.known(context)
            chat = self._options
            return request_body(chat.model, context, self._transcripts.texts, options, limit_name=chat.limit_name)

        reply.begin(self._tasks.begin(reply.run(ask), f"{self._local.session_id}-{response_id}"))

    def _adopt(self, response_id: str) -> None:
        if (prepared := self._prepared.pop(response_id, None)) is not None:
            self._begin(response_id, prepared.options, prepared.context)
        elif (reply := self._replies.get(response_id)) is not None:
            reply.adopt()

    def _abort(self, response_id: str, order: Abort | Drop) -> None:
        if self._prepared.pop(response_id, None) is not None:
            self._local.tell(ResponseFinished(response_id, FinishReason.ABORTED))
        elif (reply := self._replies.get(response_id)) is not None:
            reply.abort()
        else:
            self._local.order(order)
