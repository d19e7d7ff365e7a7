"""The items of a conversation, in order; clients insert, delete, retrieve."""

from typing import Final

from agent.items import FunctionCall, FunctionCallOutput, Item, is_servers

__all__ = ["MAX_ITEMS", "History", "RefusedError"]

MAX_ITEMS: Final = 2_000
"""Hours of dialogue, far more than any model here is told. The server may refuse clients earlier."""


class RefusedError(Exception):
    """A request that can't be met: the client's mistake, with the protocol's code for it (protocols.md 1.12)."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class History:
    """Items by id, in the order of the conversation."""

    def __init__(self, max_items: int = MAX_ITEMS) -> None:
        self._max_items = max_items
        self._items: dict[str, Item] = {}
        self._order: list[str] = []
        # Rises with every change.
        self.version = 0
        # Whether the client is told of items about tools that the server runs.
        self.shows_tools = False

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, in order."""
        return tuple(self._items[item_id] for item_id in self._order)

    @property
    def last(self) -> Item | None:
        """The last item."""
        return self._items[self._order[-1]] if self._order else None

    @property
    def is_full(self) -> bool:
        """Whether clients may insert no more. What is said still gets in: `trim` makes room for it."""
        return len(self._order) >= self._max_items

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def find(self, item_id: str, code: str) -> Item:
        """The item; raises RefusedError with `code` where there is none."""
        if item_id not in self._items:
            raise RefusedError(code, f"The item with id '{item_id}' does not exist.", "item_id")
        return self._items[item_id]

    def previous_id(self, item_id: str) -> str | None:
        """The id before this item's, of the items that the client knows."""
        return self._known_before(self._order.index(item_id))

    def shows(self, item: Item) -> bool:
        """Whether the client is told of this item."""
        return self.shows_tools or not is_servers(item)

    def add(self, item: Item, previous_item_id: str | None = None) -> str | None:
        """Insert behind `previous_item_id` (None: at the end, "root": in front); returns `previous_id` of it. Raises RefusedError
        for an id that is taken, a previous item that is not there, or the output of a call that was never made."""
        if item.id in self._items:
            raise RefusedError("item_create_duplicate_item_id", f"An item with id '{item.id}' already exists.", "item.id")
        if isinstance(item, FunctionCallOutput) and not self._called(item.call_id):
            raise RefusedError("invalid_value", f"No function call has the call_id '{item.call_id}'.", "item.call_id")
        if previous_item_id is None:
            index = len(self._order)
        elif previous_item_id == "root":
            index = 0
        elif previous_item_id in self._items:
            index = self._order.index(previous_item_id) + 1
        else:
            message = f"Can't insert the item: the item with id '{previous_item_id}' does not exist."
            raise RefusedError("item_create_invalid_previous_item_id", message, "previous_item_id")
        self._order.insert(index, item.id)
        self._items[item.id] = item
        self.version += 1
        return self._known_before(index)

    def replace(self, item: Item) -> None:
        """The same item, changed. Nothing where it has been deleted."""
        if item.id in self._items:
            self._items[item.id] = item
            self.version += 1

    def delete(self, item_id: str) -> None:
        """Remove an item; raises RefusedError where there is none."""
        self.find(item_id, "item_delete_invalid_item_id")
        self._remove(item_id)

    def trim(self) -> list[Item]:
        """Remove the oldest items of a conversation that has grown too long, and return them."""
        oldest = [self._items[item_id] for item_id in self._order[: max(0, len(self._order) - self._max_items)]]
        for item in oldest:
            self._remove(item.id)
        return oldest

    def _known_before(self, index: int) -> str | None:
        before = (self._order[place] for place in range(index - 1, -1, -1))
        return next((item_id for item_id in before if self.shows(self._items[item_id])), None)

    def _remove(self, item_id: str) -> None:
        del self._items[item_id]
        self._order.remove(item_id)
        self.version += 1

    def _called(self, call_id: str) -> bool:
        return any(isinstance(item, FunctionCall) and item.call_id == call_id for item in self._items.values())
