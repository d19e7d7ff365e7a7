"""What the server can say without an engine: an apology, synthesised when the engine starts and kept here as sound (design.md section 6,
"Apologies"), so that a dead engine cannot silence it."""

import contextlib
import queue
import time
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from streaming.audio import Pcm16, resample_clause, to_pcm16, to_samples
from streaming.doors import Engine, EngineOutput, SessionEvent, SynthesisedAudio
from streaming.events import AudioReady, FinishReason, RespondOptions, ResponseFinished, Say, SessionSpec, TextDelta, WordMark

__all__ = ["APOLOGY", "UNABLE", "FixedSpeech", "speak_fixed"]

APOLOGY: Final = "Sorry, one moment please."

UNABLE: Final = "Sorry, something went wrong. Please try again."
"""Said by the engine's voice where an answer that was to come from elsewhere does not come, or not to its end."""

_RATE: Final = 24_000
"""The rate most clients ask for; others are resampled from it when they need it."""

_SESSION: Final = "fixed-speech"
_PATIENCE_SECONDS: Final = 30.0
"""A warm voice says a sentence in a fraction of a second."""


@dataclass(frozen=True, slots=True, eq=False)
class FixedSpeech:
    """Words and their sound: `pcm` int16 shape (n,) at 24 kHz. `words` mark it as they would in a reply that begins with it."""

    text: str
    pcm: Pcm16
    words: tuple[WordMark, ...]
    exact: bool

    def as_reply(self, session_id: str, response_id: str, rate: int) -> tuple[TextDelta, SynthesisedAudio, AudioReady]:
        """It as the beginning of a response at `rate`."""
        text = self.text + " "
        pcm = to_pcm16(resample_clause(to_samples(self.pcm), _RATE, rate))
        words = tuple(WordMark(word.text_end, min(len(pcm), word.end * rate // _RATE)) for word in self.words)
        if words:
            words = (*words[:-1], replace(words[-1], text_end=len(text)))
        return (
            TextDelta(response_id, text),
            SynthesisedAudio(session_id, response_id, 0, pcm),
            AudioReady(response_id, 0, len(pcm), len(text), words, self.exact),
        )


def speak_fixed(engine: Engine, early: "queue.SimpleQueue[EngineOutput]", text: str = APOLOGY) -> FixedSpeech:
    """Have a warm engine that serves nobody yet say `text`. Its outputs are what `step` returns and what comes into `early`; nothing is
    left there. Raises RuntimeError if the voice does not say it."""
    engine.open(_SESSION, SessionSpec())
    engine.order(_SESSION, Say(_SESSION, text, RespondOptions(rate=_RATE)))
    sound: list[Pcm16] = []
    marks: list[AudioReady] = []
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < give_up:
        for output in _outputs(engine, early):
            match output:
                case SynthesisedAudio(pcm=pcm):
                    sound.append(pcm)
                case SessionEvent(event=AudioReady() as ready):
                    marks.append(ready)
                case SessionEvent(event=ResponseFinished(reason=FinishReason.STOP)) if sound:
                    engine.close(_SESSION)
                    engine.step()
                    words = tuple(word for ready in marks for word in ready.words)
                    return FixedSpeech(text, np.concatenate(sound), words, all(ready.exact for ready in marks))
                case SessionEvent(event=ResponseFinished(error=error)):
                    raise RuntimeError(f"the voice could not say {text!r}: {error or 'there was no sound'}")
    raise RuntimeError(f"the voice did not say {text!r} within {_PATIENCE_SECONDS:.0f} s")


def _outputs(engine: Engine, early: "queue.SimpleQueue[EngineOutput]") -> list[EngineOutput]:
    """What a step gives; waits a little for what comes on the voice's thread."""
    outputs = engine.step()
    with contextlib.suppress(queue.Empty):
        outputs.append(early.get(timeout=0.01))
    while not early.empty():  # nobody else takes
        outputs.append(early.get())
    return outputs
