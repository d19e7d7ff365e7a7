"""`vivavoce talk`: plays recordings to a server at microphone pace and shows both sides of the dialogue, with the latency of each turn."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from server.caller import Caller, Turn, call
from server.caller_audio import CALLER_RATE, Recording, RecordingError, load_recording, render, write_wav
from server.caller_wire import Arrival, CallError, text_of

__all__ = ["talk"]


async def talk(files: Sequence[Path], output: Path | None, url: str, api_key: str | None, console: Console | None = None) -> int:
    """One conversation: a turn per file, the next once the answer to the last has been played. `output` gets the answers as they were
    heard, from the moment the caller first stopped speaking, as 24 kHz PCM16. Returns the exit code: 0, 1 where the call failed, 2
    where a file can't be used; either way one line on standard error says what to do. `console` replaces both outputs."""
    out, errors = console or Console(highlight=False), console or Console(highlight=False, stderr=True)
    try:
        await _converse(_load(files, output), output, url, api_key, out)
    except RecordingError as error:
        return _complain(errors, str(error), 2)
    except CallError as error:
        return _complain(errors, str(error), 1)
    return 0


def _load(files: Sequence[Path], output: Path | None) -> list[Recording]:
    """Every file, before the call begins: a mistake in the last shows at once."""
    if output is not None and not output.absolute().parent.is_dir():
        raise RecordingError(f"{output}: no such folder")
    return [load_recording(path) for path in files]


def _complain(errors: Console, message: str, code: int) -> int:
    errors.print(Text.assemble(("vivavoce talk: ", "bold red"), message), soft_wrap=True)
    return code


async def _converse(recordings: Sequence[Recording], output: Path | None, url: str, api_key: str | None, out: Console) -> None:
    async with call(url, api_key) as caller:
        try:
            for recording in recordings:
                await _turn(caller, recording, out)
        finally:
            if output is not None and caller.speaker.parts:
                answer = render(caller.speaker.parts, caller.turns[0].speech_ended)
                write_wav(output, answer)
                out.print(f"wrote {output} ({len(answer) / CALLER_RATE:.1f} s)", style="dim", soft_wrap=True)


async def _turn(caller: Caller, recording: Recording, out: Console) -> None:
    view = _View(recording)
    if out.is_terminal:
        with Live(view.render(), console=out, auto_refresh=False, vertical_overflow="visible") as live:
            async for arrival in caller.speak(recording):
                if view.take(arrival):
                    live.update(view.render(), refresh=True)
            live.update(Group(view.render(), _timing(caller.turns[-1])), refresh=True)
        return
    async for arrival in caller.speak(recording):
        view.take(arrival)
    for line in (*view.lines(), _timing_line(caller.turns[-1])):
        out.print(line, soft_wrap=True, markup=False)


class _View:
    """Both sides of one turn: the caller's words as they settle, the agent's as its audio arrives."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        # (item_id, words, final) of the caller, in order.
        self._caller: dict[str, tuple[str, bool]] = {}
        # Words of each response, in order; a false start and the answer after it are two.
        self._agent: dict[str, str] = {}
        self._cancelled: set[str] = set()

    def take(self, arrival: Arrival) -> bool:
        """Notes an event; whether anything to be seen has changed."""
        event = arrival.event
        match arrival.kind:
            case "conversation.item.input_audio_transcription.delta":
                item = text_of(event, "item_id")
                self._caller[item] = (self._caller.get(item, ("", False))[0] + text_of(event, "delta"), False)
            case "conversation.item.input_audio_transcription.completed":
                self._caller[text_of(event, "item_id")] = (text_of(event, "transcript"), True)
            case "response.output_audio_transcript.delta":
                response = text_of(event, "response_id")
                self._agent[response] = self._agent.get(response, "") + text_of(event, "delta")
            case "response.done" if text_of(event, "response", "status") == "cancelled":
                self._cancelled.add(text_of(event, "response", "id"))
            case _:
                return False
        return True

    def lines(self) -> list[str]:
        """The turn as plain lines."""
        heard = " ".join(words for words, _ in self._caller.values()).strip()
        agent = [f"agent: {words.strip()}{' --' if key in self._cancelled else ''}" for key, words in self._agent.items()]
        return [f"you ({self._recording.name}): {heard}", *agent]

    def render(self) -> RenderableType:
        """The turn for a terminal: settled words dim until the final transcript replaces them."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(ratio=1)
        caller = Text()
        for words, final in self._caller.values():
            caller.append(f"{words.strip()} ", "" if final else "dim")
        table.add_row(Text("you", "cyan"), caller if self._caller else Text(f"speaking {self._recording.name} ...", "dim italic"))
        for response, words in self._agent.items():
            cut = (" --", "dim") if response in self._cancelled else ""
            table.add_row(Text("agent", "magenta"), Text.assemble(words.strip(), cut))
        return table


def _timing_line(turn: Turn) -> str:
    """How long the answer took, and where the time went."""
    if turn.latency_ms is None:
        return "latency: no audible answer"
    line = f"latency: {turn.latency_ms:.0f} ms from the last word to the first sound"
    if turn.ledger_ms is not None:
        stages = ", ".join(f"{stage.name} {stage.ms:.0f}" for stage in turn.stages)
        line += f" (server {turn.ledger_ms:.0f}{': ' + stages if stages else ''})"
    if turn.false_starts:
        line += f"; the agent began {turn.false_starts} time{'s' if turn.false_starts > 1 else ''} before you had finished"
    return line


def _timing(turn: Turn) -> RenderableType:
    return Text(f"{_timing_line(turn)}\n", "dim")
