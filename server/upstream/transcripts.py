"""The words of the caller's turns, as the engine here has understood them: what an upstream is told they said."""

import asyncio
from collections.abc import Iterable, Mapping

from server.engine_link import Fact
from streaming.events import CommitTurn, ContextMessage, EngineFailed, EngineOrder, SetHistory, TranscriptDone, TranscriptFailed

__all__ = ["Transcripts"]


class Transcripts:
    """One session's. `note` every order and every fact, in order."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        # Items whose words are being found.
        self._due: set[str] = set()
        # Told anew whenever one has been found.
        self._found = asyncio.Event()

    @property
    def texts(self) -> Mapping[str, str]:
        """By item."""
        return self._texts

    def note(self, what: EngineOrder | Fact) -> None:
        """An order of the conversation, or what the engine tells."""
        match what:
            case CommitTurn(item_id, transcript=None):
                self._due.add(item_id)
            case CommitTurn(item_id, transcript=str(text)) | TranscriptDone(item_id, text):
                self._texts[item_id] = text
                self._end(item_id)
            case TranscriptFailed(item_id):
                self._end(item_id)
            case EngineFailed():
                self._due.clear()
                self._found.set()
            case SetHistory(messages):
                kept = {message.item_id for message in messages} | self._due
                self._texts = {item_id: text for item_id, text in self._texts.items() if item_id in kept}

    async def known(self, context: Iterable[ContextMessage]) -> None:
        """Wait for the words of every message that has none yet."""
        awaited = {message.item_id for message in context if message.text is None}
        while awaited & self._due:
            self._found.clear()
            await self._found.wait()

    def _end(self, item_id: str) -> None:
        self._due.discard(item_id)
        self._found.set()
