"""What the echo suppressor (`server.echo`) does by itself, without Ear, engine and conversation.

    python -m benchmarks.echo_filter [--data ../shared/data]

ERLE is the echo's energy before and after, in dB: of the real pair of far end and microphone of `aec_pairs`, and of speech through the
rooms of both lists at three levels and five delays. In the second part the delay jumps by 80 ms halfway, the microphone's clock runs 100
ppm fast, the loudspeaker clips; figures are of the half after. `alone`: speech while something of ours is played and nothing of it is
heard, and how much of it is left. Processor time is of this thread, a second of sound in which ours sounds.
"""

import argparse
import time
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.dialogues.sources import list_of, read_recording
from benchmarks.rooms import EchoPath, Speaker, room_response
from server.echo import EchoSuppressor
from streaming.audio import AudioFrame, Samples, to_pcm16
from streaming.echo_canceller import WebRtcEchoCanceller
from streaming.events import SAMPLE_RATE

__all__ = ["erle_db", "through_room", "without_echo"]

_FRAME: Final = SAMPLE_RATE // 50
_PAIR: Final = "dev/aec_pairs/9mkQhVtzTEy2hDk-6u2Sww_farend_singletalk"
_HISS: Final = 10 ** (-70 / 20)
_DELAYS_MS: Final = (20, 60, 120, 200, 300)


def without_echo(heard: Samples, played: Samples) -> Samples:
    """What the suppressor gives for `heard` while `played` leaves with it, frame by frame; both (n,)."""
    suppressor, clean = EchoSuppressor(WebRtcEchoCanceller()), np.zeros_like(heard)
    ours = to_pcm16(played)
    for at in range(0, len(heard) // _FRAME * _FRAME, _FRAME):
        suppressor.loudspeaker.play("ours", at, ours[at : at + _FRAME], SAMPLE_RATE)
        frame = suppressor.push(AudioFrame(heard[at : at + _FRAME], at), at + _FRAME)
        if frame is not None:
            clean[frame.at : frame.at + len(frame.pcm)] = frame.pcm
    return clean


def through_room(played: Samples, path: EchoPath, room: Samples) -> Samples:
    """What a microphone hears of it, with a little hiss."""
    speaker = Speaker(path, room, len(played) / SAMPLE_RATE)
    speaker.play(0, played)
    echo = [speaker.echo(at, _FRAME) for at in range(0, len(played) // _FRAME * _FRAME, _FRAME)]
    heard = np.concatenate((*echo, np.zeros(len(played) % _FRAME, np.float32)))
    hiss = np.random.default_rng(0).normal(0, _HISS, len(heard)).astype(np.float32)
    return np.clip(heard + hiss, -1.0, 1.0)


def erle_db(heard: Samples, clean: Samples, start: float, end: float | None = None) -> float:
    """From second `start` to `end`."""
    part = slice(int(start * SAMPLE_RATE), None if end is None else int(end * SAMPLE_RATE))
    before, after = (float(np.sum(np.square(sound[part], dtype=np.float64))) for sound in (heard, clean))
    return 10 * float(np.log10((before + 1e-9) / (after + 1e-9)))


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl")
    data = parser.parse_args().data
    far, mic = (read_recording(data / f"{_PAIR}_{part}.flac") for part in ("lpb", "mic"))
    length = min(len(far), len(mic))
    clean = without_echo(mic[:length], far[:length])
    print(
        f"real pair: ERLE {erle_db(mic[:length], clean, 0, 2):.1f} dB in the first two seconds, {erle_db(mic[:length], clean, 2):.1f} after"
    )
    said = _speech(data, "spk1", -20)
    rooms = [room_response(read_recording(data / path)) for name in ("tune", "report") for path in list_of(name)["rooms"]]
    for level in (-6.0, -12.0, -20.0):
        row = []
        for delay, room in zip(_DELAYS_MS, rooms, strict=True):
            heard = through_room(said, EchoPath(level, delay), room)
            clean = without_echo(heard, said)
            row.append(f"{delay} ms {erle_db(heard, clean, 0, 1):3.0f} {erle_db(heard, clean, 1, 3):3.0f} {erle_db(heard, clean, 3):3.0f}")
        print(f"{level:g} dB, ERLE in the first second, the next two, and after: " + "; ".join(row))
    half = len(said) / SAMPLE_RATE / 2 + 2
    for name, path in (
        ("as it is", EchoPath(-6, 60)),
        ("delay jumps by 80 ms", EchoPath(-6, 60, jump_ms=80)),
        ("100 ppm", EchoPath(-6, 60, drift_ppm=100)),
        ("clips", EchoPath(-6, 60, drive=4)),
    ):
        heard = through_room(said, path, rooms[0])
        print(f"-6 dB, 60 ms, {name}: {erle_db(heard, without_echo(heard, said), half):.0f} dB")
    other = _speech(data, "spk2", -23)[: len(said)]
    took = time.thread_time()
    clean = without_echo(other, said[: len(other)])
    took = time.thread_time() - took
    print(
        f"alone: {-erle_db(other, clean, 0):.1f} dB; {took / (len(other) / SAMPLE_RATE) * 1_000:.1f} ms of processor time a second of sound"
    )


def _speech(data: Path, speaker: str, decibels: float) -> Samples:
    """Six sentences of one speaker at this RMS."""
    sound = np.concatenate([read_recording(data / f"dev/speechbrain/ASR_{speaker}_snt{n}.flac") for n in range(1, 7)])
    rms = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
    return np.clip(sound * np.float32(10 ** (decibels / 20) / rms), -0.99, 0.99).astype(np.float32)


if __name__ == "__main__":
    main()
