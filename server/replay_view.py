"""`vivavoce replay`: says whether logs replay exactly, shows the dialogue for reading, and where this version orders something else."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import SequenceMatcher
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from agent.commands import AgentOrder, EndCall, PartRef, PlayoutOrder, ResponseSnapshot
from agent.events import AgentEvent, ClientRequest, PlaybackProgress, PlaybackReported, SessionOpened, Tick
from agent.items import Message
from server.ledger import STAGES, TurnLedger
from server.recording import LogEnd, LogError, LogHeader, core_fingerprint
from server.replay import Replayed, replay
from server.waterfall import Waterfall
from streaming.events import SAMPLE_RATE, ContextMessage, EarEvent, EngineOrder, Listened, SetHistory

__all__ = ["replay_logs"]

_QUIET: Final = (Listened, PlaybackProgress, PlaybackReported, Tick)
"""Events that come many times a second: those that ordered nothing are counted, not shown."""
_INPUT_POSITIONS: Final = ("at", "start", "end")
"""Fields of the Ear's facts and of turns that count samples of the caller's audio."""
_ID: Final = re.compile(r"[a-z]+_[0-9A-Za-z]{21}")
_MOST_CHARACTERS: Final = 70
"""Of a text: enough to know it again."""
_MOST_VALUES: Final = 2
_MILLISECOND: Final = SAMPLE_RATE / 1_000


def replay_logs(logs: Sequence[Path], picture: Path | None = None, *, show: bool, out: Console, errors: Console) -> int:
    """Replays each log and says how it went; draws the waterfall of the last one in `picture`. Returns the exit code: 0 if every log is
    whole and exact, else 1."""
    waterfall = Waterfall()
    code = max([_replay_one(path, waterfall, show=show, out=out, errors=errors) for path in logs], default=0)
    return max(code, _draw(waterfall, picture, out, errors)) if picture is not None else code


def _draw(waterfall: Waterfall, picture: Path, out: Console, errors: Console) -> int:
    try:
        turns = waterfall.draw(picture)
    except OSError as error:
        errors.print(f"vivavoce: cannot write {picture}: {error.strerror}", soft_wrap=True)
        return 1
    if not turns:
        errors.print("vivavoce: nothing to draw: no turn in this log was answered with sound", soft_wrap=True)
        return 1
    out.print(f"{picture}: {turns} turn{'s' if turns > 1 else ''}", soft_wrap=True)
    return 0


def _replay_one(path: Path, waterfall: Waterfall, *, show: bool, out: Console, errors: Console) -> int:
    view = _View(show, out)
    try:
        for line in replay(path):
            waterfall.see(line)
            view.see(line)
    except LogError as error:
        view.conclude(" up to where the log ends")
        errors.print(f"vivavoce: {error}", soft_wrap=True)
        return 1
    view.conclude("")
    return 0 if view.exact else 1


class _View:
    """Says how the replay of one log goes: with `show` line by line, and in the end whether it was exact."""

    def __init__(self, show: bool, out: Console) -> None:
        self._show = show
        self._out = out
        self._header: LogHeader | None = None
        self._events = 0
        self._commands = 0
        # Events that ordered nothing and were not shown.
        self._silent = 0
        # Whether every event so far was; what comes after one that was not says nothing.
        self.exact = True

    def see(self, line: LogHeader | Replayed | TurnLedger | LogEnd) -> None:
        if not self.exact:
            return
        if isinstance(line, LogHeader):
            self._header = line
        if self._show:
            self._print(line)
        if isinstance(line, Replayed):
            self._events, self._commands, self.exact = line.number, self._commands + len(line.ordered), line.exact
            if not line.exact:
                assert self._header is not None, "the header comes first"
                _show_difference(self._header, line, self._out)

    def conclude(self, how_far: str) -> None:
        """The last line, where all of it was exact."""
        if self._header is not None and self.exact:
            left_out = f" ({self._silent} events that ordered nothing are not shown)" if self._silent else ""
            counts = f"{self._events} events, {self._commands} commands"
            self._out.print(f"{self._header.session_id}: {counts}, exact{how_far}{left_out}", soft_wrap=True)

    def _print(self, line: LogHeader | Replayed | TurnLedger | LogEnd) -> None:
        if _is_silent(line):
            self._silent += 1
            return
        for text in _lines(line):
            self._out.print(text, soft_wrap=True)


def _show_difference(header: LogHeader, step: Replayed, out: Console) -> None:
    """The first event that was not exact, and both sides of it in full."""
    out.print(f"{header.session_id}: event {step.number}, at {_clock(step.told.now)}, is not exact", style="bold red", soft_wrap=True)
    out.print(Text(f"  told  {step.told.event!r}"), soft_wrap=True)
    told = [repr(command) for command in step.told.ordered] + ([f"raised {step.told.failed}"] if step.told.failed else [])
    now = [repr(command) for command in step.ordered] + ([f"raises {step.failed}"] if step.failed else [])
    for kind, before, until, after, end in SequenceMatcher(None, told, now, autojunk=False).get_opcodes():
        if kind == "equal":
            out.print(Text(f"  both  {until - before} commands alike", "dim"))
            continue
        for text in told[before:until]:
            out.print(Text(f"- log   {text}", "red"), soft_wrap=True)
        for text in now[after:end]:
            out.print(Text(f"+ here  {text}", "green"), soft_wrap=True)
    if header.core == core_fingerprint():
        out.print("The core that recorded it is this very one, so it must not differ: please report it with this log.", soft_wrap=True)
    else:
        out.print(
            f"Recorded by vivavoce {header.version} (core {header.core}); this is {version('vivavoce')} (core {core_fingerprint()}). "
            "They may differ on purpose: see what changed in between.",
            soft_wrap=True,
        )


# ------------------------------------------------------------------------------------------------------- the dialogue


def _is_silent(line: object) -> bool:
    return isinstance(line, Replayed) and isinstance(line.told.event, _QUIET) and not line.ordered and not line.failed


def _lines(line: LogHeader | Replayed | TurnLedger | LogEnd) -> Iterator[Text]:
    """A line of the log as a person reads it."""
    match line:
        case LogHeader():
            began = f"{line.session_id}, recorded {line.began} by vivavoce {line.version} (core {line.core})"
            yield Text(began, "bold")
        case TurnLedger():
            yield Text(f"{'':>13}turn     {_account(line)}", "cyan")
        case Replayed(_, told, ordered):
            yield Text.assemble((f"{_clock(told.now):>11}  ", "dim"), (f"{_source(told.event):9}", "bold"), _brief(told.event))
            for command in ordered:
                yield Text.assemble((f"{'':>15}-> {_target(command):8} ", "dim"), _brief(command))
            if line.failed:
                yield Text(f"{'':>15}-> raised {line.failed}", "red")


def _account(turn: TurnLedger) -> str:
    """Where a turn's time went; and when its answer was heard, which is known later."""
    if turn.played is not None:
        how = "as the client reports" if turn.reported else "as is estimated"
        return f"heard {turn.played / _MILLISECOND:.0f} ms after its first sample left, {how}"
    parts = zip(STAGES, turn.stages, strict=True)
    stages = ", ".join(f"{name} {ticks / _MILLISECOND:.0f}" for name, ticks in parts if ticks)
    prepared = ", prepared in a pause" if turn.speculated else ""
    return f"answered after {turn.total / _MILLISECOND:.0f} ms: {stages}{prepared}"


def _source(event: object) -> str:
    match event:
        case PlaybackProgress():
            return "playout"
        case Tick():
            return "time"
        case _ if isinstance(event, EarEvent):
            return "ear"
        case _ if isinstance(event, ClientRequest | SessionOpened):
            return "client"
        case _ if isinstance(event, AgentEvent):
            return "agent"
    return "engine"


def _target(command: object) -> str:
    match command:
        case EndCall():
            return "session"
        case _ if isinstance(command, EngineOrder):
            return "engine"
        case _ if isinstance(command, PlayoutOrder):
            return "playout"
        case _ if isinstance(command, AgentOrder):
            return "agent"
    return "client"


def _brief(value: object) -> str:
    """A fact or an order with what is not as it always is."""
    if isinstance(value, SetHistory):
        last = f", the last {_value(value.messages[-1])}" if value.messages else ""
        return f"SetHistory {len(value.messages)} messages{last}"
    told = [f"{field.name}={_position(field.name, value) or _value(getattr(value, field.name))}" for field in _telling(value)]
    return " ".join([type(value).__name__, *told])


def _telling(value: object) -> list[Field[object]]:
    """The fields of a dataclass that are neither at their default nor None."""
    return [field for field in fields(value) if getattr(value, field.name) not in (None, _default(field))]  # type: ignore[arg-type]


def _default(field: Field[object]) -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _position(name: str, value: object) -> str | None:
    """A position in the caller's audio, as a time."""
    counts = name in _INPUT_POSITIONS and not hasattr(value, "response_id")
    position = getattr(value, name)
    return _clock(position) if counts and isinstance(position, int) else None


def _value(value: object) -> str:
    match value:
        case str():
            if _ID.fullmatch(value):
                return value[: value.index("_") + 5]
            return f'"{value[:_MOST_CHARACTERS]}..."' if len(value) > _MOST_CHARACTERS else f'"{value}"'
        case Enum():
            return value.name.lower()
        case float():
            return f"{value:.3g}"
        case ResponseSnapshot():
            why = [_value(told) for told in (value.reason, value.error) if told]
            return " ".join((_value(value.id), value.status.value, *why))
        case Message():
            words = " ".join(part.text or f"({part.kind.value})" for part in value.content)
            return f"{_value(value.id)} {value.role} {_value(words)}"
        case ContextMessage():
            called = f" {value.name}" if value.name else ""
            return f"{value.role}{called} {_value(value.text or '(as transcribed)')}{'' if value.complete else ' (cut)'}"
        case PartRef():
            return f"{_value(value.response_id)}/{_value(value.item_id)}"
        case tuple():
            more = [f"{len(value) - _MOST_VALUES} more"] if len(value) > _MOST_VALUES else []
            return "[" + ", ".join([*(_value(one) for one in value[:_MOST_VALUES]), *more]) + "]"
        case _ if is_dataclass(value):
            inner = " ".join(f"{field.name}={_value(getattr(value, field.name))}" for field in _telling(value))
            return f"({inner or 'the defaults'})"
    return str(value)


def _clock(ticks: int) -> str:
    """Minutes, seconds and milliseconds."""
    milliseconds = ticks * 1_000 // SAMPLE_RATE
    return f"{milliseconds // 60_000}:{milliseconds // 1_000 % 60:02}.{milliseconds % 1_000:03}"
