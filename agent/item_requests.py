"""A client's requests about the items of the conversation: create, retrieve, truncate, delete (protocols.md 1.9)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from agent.commands import Command, ItemAdded, ItemDeleted, ItemDone, ItemRetrieved, ItemTruncated
from agent.events import CreateItem, DeleteItem, RetrieveItem, TruncateItem
from agent.heard import HeardReplies
from agent.history import History, RefusedError
from agent.items import ApprovalResponse
from agent.responses import Responses
from agent.tools import ToolCalls
from agent.transcripts import Transcripts
from agent.turns import TurnTaker

__all__ = ["ItemRequest", "ItemRequests"]

_TRUNCATE_TOLERANCE_MS: Final = 40
"""Two frames: clients count by their own clocks, and one of them ends the session on an error here."""

ItemRequest = CreateItem | RetrieveItem | TruncateItem | DeleteItem


class ItemRequests:
    """Meets them for one session; raises RefusedError for one that can't be met."""

    def __init__(
        self,
        history: History,
        heard: HeardReplies,
        turns: TurnTaker,
        transcripts: Transcripts,
        responses: Responses,
        tools: ToolCalls,
        make_id: Callable[[str], str],
    ) -> None:
        self._history = history
        self._heard = heard
        self._turns = turns
        self._transcripts = transcripts
        self._responses = responses
        self._tools = tools
        self._make_id = make_id

    def handle(self, request: ItemRequest, now: int) -> list[Command]:
        """What a request leads to."""
        match request:
            case CreateItem():
                return self._create(request, now)
            case RetrieveItem(_, item_id):
                return [ItemRetrieved(self._heard.as_heard(self._history.find(item_id, "item_retrieve_invalid_item_id")))]
            case TruncateItem():
                return self._truncate(request)
            case DeleteItem(_, item_id):
                self._history.delete(item_id)
                return [self._forget(item_id), *self._responses.go_on_without(item_id)]

    def trim(self) -> list[Command]:
        """Forget the oldest items of a conversation that has grown too long."""
        forgotten = [(item, self._forget(item.id)) for item in self._history.trim()]
        return [notice for item, notice in forgotten if self._history.shows(item)]

    def _create(self, request: CreateItem, now: int) -> list[Command]:
        item = request.item if request.item.id else replace(request.item, id=self._make_id("item"))
        if item.id == self._turns.open_item_id:
            raise RefusedError("item_create_duplicate_item_id", f"The turn being spoken has the id '{item.id}'.", "item.id")
        if self._history.is_full:
            raise RefusedError("invalid_value", "The conversation is full; delete items, or open another session.", "item")
        approved = self._tools.approve(item, now) if isinstance(item, ApprovalResponse) else []
        previous = self._history.add(item, request.previous_item_id)
        return [ItemAdded(item, previous), ItemDone(item, previous), *approved]

    def _forget(self, item_id: str) -> Command:
        """The item is no longer in the history."""
        self._heard.forget(item_id)
        self._transcripts.forget(item_id)
        return ItemDeleted(item_id)

    def _truncate(self, request: TruncateItem) -> list[Command]:
        self._history.find(request.item_id, "item_truncate_invalid_item_id")
        spoken = self._heard.spoken(request.item_id)
        if spoken is None or spoken.samples == 0:
            raise RefusedError("unsupported_content_type", "Only model output audio messages can be truncated", "item_id")
        longest = spoken.milliseconds(spoken.sent)
        if request.audio_end_ms > longest + _TRUNCATE_TOLERANCE_MS:
            message = f"Audio content of {longest}ms is already shorter than {request.audio_end_ms}ms"
            raise RefusedError("invalid_value", message, "audio_end_ms")
        self._heard.truncate(request.item_id, min(spoken.sent, request.audio_end_ms * spoken.rate // 1_000))
        return [ItemTruncated(request.item_id, request.content_index, request.audio_end_ms)]
