"""What the model is told of a long conversation: its end word for word, and of its beginning notes.

Once the conversation has more characters than its budget, and nobody speaks, its oldest items are covered: the history and the client keep
them, the model is told the notes instead. Notes are extracts: what the caller said of themselves, what we told them in figures, and the
last results of tools, all verbatim. `python -m benchmarks.memory` compares them with leaving out and with a summary by the model. They are
made anew from what is covered whenever that changes, so what a client deletes is in them no longer.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from agent.heard import HeardReplies
from agent.history import History
from agent.items import FunctionCall, FunctionCallOutput, Item, ItemStatus, Message, ServerCall
from agent.prompt import context_of, words_of
from streaming.events import NOTES, ContextMessage

__all__ = ["Memory", "notes_of"]

_BUDGET: Final = 8_000
"""Characters told word for word: some 2,000 tokens, ten minutes of talk; the pocket model has room for 3,500 tokens."""

_LAST: Final = 4
"""Items at the end that are never covered."""

_SENTENCE: Final = 200
_RESULTS: Final = 4
_RESULT: Final = 400
"""Characters of a sentence in the notes, results of tools in them, and characters of each."""

_SELF: Final = re.compile(
    r"\b(i'm|i am|my|i have|i've|i live|i work|call me|we are|our|i need|i want|i'd like|i prefer|i can't|i don't)\b", re.I
)
_FIGURE: Final = re.compile(
    r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|monday|tuesday|wednesday|thursday|friday|saturday"
    r"|sunday|january|february|march|april|june|july|august|september|october|november|december)\b",
    re.I,
)
_NAME: Final = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")


class Memory:
    """One session's. `budget` is in characters: half of it is left when items are covered, so that this happens seldom, for the model then
    reads everything anew; notes get a quarter besides."""

    def __init__(self, history: History, heard: HeardReplies, budget: int = _BUDGET) -> None:
        self._budget = budget
        self._history = history
        self._heard = heard
        # Items that the model is told of in notes only. Those that have been deleted since are dropped at the next covering.
        self._covered: dict[str, None] = {}
        # The history as it was when covering was last thought of.
        self._seen = -1
        # The notes, and what they were made from.
        self._noted: tuple[ContextMessage, ...] = ()
        self._noted_from: tuple[Item, ...] = ()

    def context(self, instructions: str, items: Sequence[Item]) -> tuple[ContextMessage, ...]:
        """What the model is told: instructions, notes, and what is not covered of `items`."""
        context = context_of(instructions, (item for item in items if item.id not in self._covered), self._heard.cut)
        if not self._covered:
            return context
        first = 1 if instructions else 0
        return (*context[:first], *self._notes(), *context[first:])

    def cover(self) -> bool:
        """Cover the oldest items of a conversation that has outgrown its budget; whether there were any. To be called while nobody speaks
        and nothing is made."""
        if self._seen == self._history.version:
            return False
        self._seen = self._history.version
        open_items = [item for item in self._history.items if item.id not in self._covered]
        sizes = [sum(len(message.text or "") for message in context_of("", (item,), self._heard.cut)) for item in open_items]
        left = sum(sizes)
        if left <= self._budget:
            return False
        covered: list[str] = []
        whole = 0
        pending: set[str] = set()
        for item, size in zip(open_items[:-_LAST], sizes, strict=False):
            if left <= self._budget // 2 or not _is_closed(item):
                break
            left -= size
            if not (isinstance(item, Message) and item.role == "system"):  # an order of the client's: it stays
                covered.append(item.id)
            if isinstance(item, FunctionCall):
                pending.add(item.call_id)
            elif isinstance(item, FunctionCallOutput):
                pending.discard(item.call_id)
            whole = whole if pending else len(covered)  # a call and its result are not parted
        self._covered = {item_id: None for item_id in self._covered if item_id in self._history} | dict.fromkeys(covered[:whole])
        return whole > 0

    def _notes(self) -> tuple[ContextMessage, ...]:
        covered = tuple(self._heard.as_heard(item) for item in self._history.items if item.id in self._covered)
        if self._noted_from != covered:
            self._noted_from = covered
            text = notes_of(covered, self._budget // 4)
            self._noted = (ContextMessage("system", NOTES, text),) if text else ()
        return self._noted


def _is_closed(item: Item) -> bool:
    """Whether nothing more of it is to come."""
    if isinstance(item, Message) and item.role == "user" and words_of(item) is None:
        return False
    return item.status is not ItemStatus.IN_PROGRESS


def notes_of(items: Sequence[Item], most: int) -> str:
    """Extracts of at most `most` characters, results of tools not counted: of sentences the weightiest, of equals the newest, in the
    order in which they were said. "" where there are none."""
    sentences = [found for item in items if isinstance(item, Message) for found in _sentences(item)]
    ranked = sorted(range(len(sentences)), key=lambda index: (sentences[index][0], index), reverse=True)
    chosen: set[int] = set()
    said: set[str] = set()
    for index in ranked:
        line = sentences[index][1]
        if line not in said and len(line) < most:
            most -= len(line) + 1
            chosen.add(index)
            said.add(line)
    lines = [line for index, (_, line) in enumerate(sentences) if index in chosen]
    lines += _results(items)
    return "\n".join(["Earlier in this call:", *lines]) if lines else ""


def _sentences(message: Message) -> Iterable[tuple[int, str]]:
    """The sentences of a message worth a note, each with its weight."""
    if message.role == "system":
        return
    for sentence in re.split(r"(?<=[.!?])\s+", (words_of(message) or "").strip()):
        figures, name = bool(_FIGURE.search(sentence)), bool(_NAME.search(sentence))
        if message.role == "user":
            question = sentence.endswith("?")
            weight = 2 * bool(_SELF.search(sentence)) + figures + name + (not question)
            if weight > 1 and len(sentence.split()) > 1:
                yield weight, f"The caller said: {sentence[:_SENTENCE]}"
        elif figures:
            yield 1, f"You said: {sentence[:_SENTENCE]}"


def _results(items: Sequence[Item]) -> list[str]:
    names = {item.call_id: item.name for item in items if isinstance(item, FunctionCall)}
    results: list[str] = []
    for item in items:
        if isinstance(item, FunctionCallOutput):
            results.append(f"Result of {names.get(item.call_id, '') or 'a call'}: {item.output[:_RESULT]}")
        elif isinstance(item, ServerCall) and item.output is not None:
            results.append(f"Result of {item.name}: {item.output[:_RESULT]}")
    return results[-_RESULTS:]
