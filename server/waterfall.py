"""The waterfall of a session's log: a row for each turn that was answered, with what was said and where the time went."""

from collections.abc import Iterable
from pathlib import Path

from agent.commands import Cut
from agent.events import Event
from server.ledger import STAGES, TurnLedger
from server.picture import WaterfallTurn, draw_waterfall
from server.recording import LogHeader
from server.replay import Replayed
from streaming.events import SAMPLE_RATE, CommitTurn, TextDelta, TranscriptDone

__all__ = ["Waterfall"]

_MILLISECOND = SAMPLE_RATE / 1_000


class Waterfall:
    """Sees a log's lines as they are replayed, in order; then draws."""

    def __init__(self) -> None:
        self._header: LogHeader | None = None
        # The newest account of each turn, by its answer, and when that was first given.
        self._turns: dict[str, TurnLedger] = {}
        self._times: dict[str, int] = {}
        self._now = 0
        # What the caller said, by item, and what was answered, by response.
        self._said: dict[str, str] = {}
        self._answers: dict[str, str] = {}
        # Answers that were cut.
        self._cut: set[str] = set()

    def see(self, line: object) -> None:
        """A line of `server.replay.replay`."""
        match line:
            case LogHeader():
                self._header = line
            case TurnLedger(_, response_id):
                self._turns[response_id] = line
                self._times.setdefault(response_id, self._now)
            case Replayed(_, told):
                self._now = told.now
                self._hear(told.event, told.ordered)  # what was ordered then, whatever this version orders

    def draw(self, path: Path) -> int:
        """Writes the picture; returns how many turns are in it. With none, no picture is written."""
        if self._turns and self._header is not None:
            recorded = f"recorded {self._header.began} by vivavoce {self._header.version} (core {self._header.core})"
            subtitle = f"{self._header.session_id}, {recorded}"
            draw_waterfall(
                path, "From the caller's last word to the answer's first sound", subtitle, [*map(self._row, self._turns.values())]
            )
        return len(self._turns)

    def _hear(self, event: Event, ordered: Iterable[object]) -> None:
        match event:
            case TranscriptDone(item_id, text):
                self._said[item_id] = text
            case TextDelta(response_id, text):
                self._answers[response_id] = self._answers.get(response_id, "") + text
        for command in ordered:
            match command:
                case CommitTurn(item_id, _, _, str() as words):
                    self._said[item_id] = words
                case Cut(response_id):
                    self._cut.add(response_id)

    def _row(self, turn: TurnLedger) -> WaterfallTurn:
        remarks = ["prepared in a pause"] * turn.speculated + ["interrupted"] * (turn.response_id in self._cut)
        seconds = self._times[turn.response_id] // SAMPLE_RATE
        return WaterfallTurn(
            at=f"{seconds // 60}:{seconds % 60:02}",
            words=self._said.get(turn.item_id, "").strip(),
            answer=self._answers.get(turn.response_id, "").strip(),
            stages={name: ticks / _MILLISECOND for name, ticks in zip(STAGES, turn.stages, strict=True)},
            heard=None if turn.played is None or not turn.reported else (turn.total + turn.played) / _MILLISECOND,
            remark=", ".join(remarks),
        )
