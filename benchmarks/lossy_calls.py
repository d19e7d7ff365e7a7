"""The loss matrix: what is heard of a caller through bad networks, in packets and in words.

    python -m benchmarks.lossy_calls [--data ../shared/data] [--clips 8] [--seeds 2] [--coding] [--json FILE]

Golden recordings, and clips of the data, are coded as Chromium codes a microphone (Opus, mono, 32 kbit/s, 20 ms, with
a copy of the packet before in each once loss is reported), sent through each of `benchmarks.networks`, and heard by what a call hears with
(`server.webrtc.microphone`): order, copies, concealment, place in the sender's clock. Then the pocket bundle's recogniser writes it down.
Time is virtual, so that nothing depends on the machine.

Rows are networks, columns packets: sent, received, lost (not there in time), late (of those, there afterwards), dropped, repeated,
recovered from a copy, concealed; `moved`: milliseconds by which the last packet's sound is away from its place, at most; `longest wait`:
milliseconds a packet waited for one before it; `words changed`: words that differ from what the same recogniser writes of the clip before
it is coded (insertions, deletions and substitutions over the words of that), with the 95 % interval of drawing clips.

`--coding` instead compares, at 20 % of loss, what may be done about it: silence, concealment, copies; and the rate that we send with.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.lossy_stream import Coding, Heard, Silence, coded, through
from benchmarks.networks import NETWORKS, Network
from benchmarks.transcript import clips_of, load
from server.eval.intervals import resampled
from server.eval.words import english_normaliser, word_distance
from server.webrtc.microphone import Tally
from server.webrtc.opus import RATE, OpusDecoder
from server.webrtc.opus_coder import FRAME
from server.webrtc.opus_stream import Decoder
from streaming.audio import Pcm16, Samples, resample_clause, to_pcm16
from streaming.batching import completed
from streaming.bundle import default_places
from streaming.events import SAMPLE_RATE
from streaming.recogniser import Recogniser, load_recogniser
from streaming.transcriber import Transcriber

_SETS: Final = ("librispeech_train100", "barista")
"""Of the data: whole sentences, read and spoken."""
_QUIET: Final = 0.5
"""Seconds of silence before and after a clip."""
_COUNTS: Final = ("received", "lost", "late", "dropped", "repeated", "recovered", "concealed")


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A clip between silence at 48 kHz, and the words that the recogniser hears in it."""

    pcm: Pcm16
    words: list[str]


@dataclass(frozen=True, slots=True)
class Trial:
    """A row to be measured. `decoder` makes what decodes."""

    name: str
    network: Network
    coding: Coding
    decoder: Callable[[], Decoder] = OpusDecoder


@dataclass
class Row:
    """One trial, over all clips. `errors` and `words` are of each clip, over its draws."""

    name: str
    sent: int = 0
    bytes_sent: int = 0
    tallies: list[Tally] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    moved_ms: float = 0.0
    wait_ms: float = 0.0

    def add(self, heard: Heard, packets: Sequence[bytes]) -> None:
        """One draw."""
        self.sent += len(packets)
        self.bytes_sent += sum(map(len, packets))
        self.tallies.append(heard.tally)
        self.wait_ms = max(self.wait_ms, 1_000 * heard.wait)
        self.moved_ms = max(self.moved_ms, 1_000 * heard.moved / RATE)

    def kbit(self) -> float:
        """Of Opus, without headers, in a second."""
        return self.bytes_sent * 8 / 1_000 / (self.sent * FRAME / RATE)

    def changed(self) -> str:
        """Their share, and 95 % of what other draws of clips would have given."""
        rate = resampled(self.errors, self.words)
        return f"{100 * rate.value:.1f} % ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


def words_of(recogniser: Recogniser, pcm: Pcm16) -> str:
    """The recogniser's text of sound at 48 kHz."""
    transcriber = Transcriber(recogniser)
    transcriber.push(resample_clause(pcm.astype(np.float32) / 32_768, RATE, SAMPLE_RATE))
    return completed(transcriber.finish()).text


def sources(recogniser: Recogniser, data: Path, most: int) -> Iterator[Source]:
    """The golden clips, and of each set as many as are asked for."""
    golden = sorted((Path(__file__).parents[1] / "tests" / "golden").glob("*.flac"))
    quiet: Samples = np.zeros(round(_QUIET * RATE), np.float32)
    normalise = english_normaliser()
    for clip in [*(load(path, {}) for path in golden), *(clip for name in _SETS for clip in clips_of(data, name, most))]:
        pcm = to_pcm16(np.concatenate((quiet, resample_clause(clip.pcm, SAMPLE_RATE, RATE), quiet)))
        yield Source(pcm, normalise(words_of(recogniser, pcm)).split())


def measure(trial: Trial, recogniser: Recogniser, clips: Sequence[Source], seeds: int) -> Row:
    """One row: every clip, through as many draws of its network."""
    normalise = english_normaliser()
    row = Row(trial.name)
    for number, clip in enumerate(track(clips, trial.name, transient=True)):
        packets = coded(clip.pcm, trial.coding)
        changed = 0
        for seed in range(seeds):
            heard = through(packets, trial.network, 1_000 * number + seed, trial.decoder())
            changed += word_distance(normalise(words_of(recogniser, heard.pcm)).split(), clip.words)
            row.add(heard, packets)
        row.errors.append(changed)
        row.words.append(seeds * len(clip.words))
    return row


def matrix() -> list[Trial]:
    """The loss matrix. A browser sends copies once loss has been reported to it."""
    return [Trial(name, network, Coding(loss=round(100 * network.loss))) for name, network in NETWORKS.items()]


def codings() -> list[Trial]:
    """What may be done about 20 % of loss."""
    network = NETWORKS["20 % loss"]
    return [
        Trial("silence", network, Coding(), Silence),
        Trial("concealed", network, Coding()),
        Trial("copies", network, Coding(loss=20)),
        Trial("concealed, 48 kbit/s", network, Coding(48_000)),
        Trial("copies, 48 kbit/s", network, Coding(48_000, 20)),
    ]


def table_of(rows: Sequence[Row]) -> Table:
    """The rows as a person reads them."""
    table = Table("network")
    for title in ("sent", *_COUNTS, "moved ms", "longest wait ms", "kbit/s", "words changed"):
        table.add_column(title, justify="right")
    for row in rows:
        counts = [str(sum(getattr(tally, name) for tally in row.tallies)) for name in _COUNTS]
        table.add_row(row.name, str(row.sent), *counts, f"{row.moved_ms:.0f}", f"{row.wait_ms:.0f}", f"{row.kbit():.0f}", row.changed())
    return table


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--clips", type=int, default=8, help="of each set")
    parser.add_argument("--seeds", type=int, default=2, help="draws of each network for each clip")
    parser.add_argument("--coding", action="store_true", help="what may be done about loss, instead")
    parser.add_argument("--whisper", type=Path, default=default_places().cache / "parts" / "whisper-base")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recogniser = load_recogniser(options.whisper)
    clips = list(sources(recogniser, options.data, options.clips))
    rows = [measure(trial, recogniser, clips, options.seeds) for trial in (codings() if options.coding else matrix())]
    console = Console(width=170)
    console.print(f"{len(clips)} clips, {sum(rows[0].words) // options.seeds} words, {options.seeds} draws of each network")
    console.print(table_of(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
