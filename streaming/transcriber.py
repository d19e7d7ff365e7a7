"""The transcript of one turn while it is being spoken, and its final text soon after.

Passes are `Work` (`streaming.batching`): they yield the model calls they need, which are made together with those of other sessions, and
return their result. A pass that is no longer wanted is simply dropped. One pass at a time per turn; sound may be pushed while it is under
way.

Whisper hears at most 30 s at once, and no other recogniser is asked for more. A longer turn is heard in windows: one ends at the first
pause after 20 s (`mark_pause`), by force at 28 s, and then the next one repeats 2 s and the texts are joined on the words they share. What
a closed window said is not decoded again.
"""

import math
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from streaming.audio import Samples
from streaming.batching import Work
from streaming.events import SAMPLE_RATE
from streaming.recognition import LONGEST_WINDOW, Decoding, WordRecogniser, WordWindow
from streaming.settling import Settler, begun, join_overlap, split_words

__all__ = ["OVERLAP", "Hypothesis", "SpeechIn", "Transcriber", "Transcript", "Window"]

SpeechIn = Callable[[Decoding, int, int], float]
"""How likely it is that a decoding of samples `start` to `end` of the turn is of somebody's words."""

_SPOKEN: Final = 0.5
"""Probability of speech from which words are kept."""

_INTERVAL: Final = 64 * SAMPLE_RATE // 100
"""New sound that makes a pass worth its price: 640 ms, two or three words."""

_PATIENCE: Final = 60 * SAMPLE_RATE // 100
"""Sound that must follow a word before it settles: 600 ms."""

_SURE: Final = 0.5
"""Mean token probability of a pass whose words may settle: the first half second of a turn is often heard as "you" at 0.4."""

_PAUSE_WINDOW: Final = 20 * SAMPLE_RATE
"""A window this long ends at the next pause."""

OVERLAP: Final = 2 * SAMPLE_RATE
"""Sound repeated by a window whose predecessor was cut by force."""

_MOST_WINDOWS: Final = 24
"""Windows that may wait for their pass: 8 to 11 minutes of sound, 1 MB each (one that has had a pass holds 37 MB of keys and values in
bfloat16). The caller has then ignored `due` for as long."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What one pass found. `settled` only ever grows, by `settled_new` (which brings the space or punctuation that goes before it);
    `provisional` is the rest of this pass's text and may be anything next time. `text` is all this pass found, and what `finish` would
    say now. `confidence` is the mean probability of a token, `speech` how likely it is that anybody spoke."""

    settled: str
    settled_new: str
    provisional: str
    confidence: float
    text: str
    speech: float = 1.0

    @property
    def steady(self) -> str:
        """What this pass says of the words that have settled: a beginning of `text`, and of the final text if no later pass corrects it."""
        return self.text.removesuffix(self.provisional)


@dataclass(frozen=True, slots=True)
class Transcript:
    """The final text of a turn of `seconds`; "" where nobody spoke. It need not begin with what had settled: `revised` counts the settled
    words that it has no more. `speech` is how likely it is that anybody spoke."""

    text: str
    confidence: float
    language: str
    seconds: float
    revised: int
    speech: float = 1.0


@dataclass(slots=True, eq=False)
class Window:
    """A stretch of the turn from sample `start` on, and what hears it. `repeats`: its beginning is also the end of the window before."""

    start: int
    repeats: bool
    heard: WordWindow

    @property
    def samples(self) -> int:
        return self.heard.samples


class Transcriber:
    """One turn of one caller: `push` its sound, make a pass whenever one is `due`, then `finish`."""

    def __init__(self, recogniser: WordRecogniser, language: str | None = None, speech_in: SpeechIn | None = None) -> None:
        """`language` as a code ("en", "de-CH"), None for the recogniser's own. Raises ValueError for one that it does not know. `speech_in`
        judges whether there was speech; without it the recogniser's word is taken."""
        self._recogniser = recogniser
        self._speech_in: SpeechIn = speech_in or (lambda decoding, _, __: float(decoding.speech))
        self._language = recogniser.language(language)
        # Samples pushed, and how many of them the last pass heard.
        self._pushed = 0
        self._heard = 0
        # The last 2 s pushed, for a window that repeats them.
        self._recent: Samples = np.zeros(0, np.float32)
        # Windows not yet closed: all but the last, which is being filled, wait for their final pass. At most _MOST_WINDOWS.
        self._windows = deque([Window(0, False, recogniser.window())])
        # The same for one who reads along, for as long as they do.
        self._followed: Callable[[], deque[Window] | None] = lambda: None
        # The last window has met its pause: the next sound begins a new one.
        self._ended = False
        # The text of closed windows, the sum of its tokens' log-probabilities and their number, and whether there was speech in any.
        self._words: list[str] = []
        self._score = _Score()
        self._settler = Settler(_PATIENCE)

    @property
    def language(self) -> str:
        """The language it is decoded with."""
        return self._language

    def follow(self) -> deque[Window]:
        """The windows from now on, the one being filled first, for one who reads along and takes out those that they are done with. All
        but the last are closed. It grows for as long as somebody holds it."""
        windows = deque([self._windows[-1]])
        self._followed = weakref.ref(windows)
        return windows

    def push(self, pcm: Samples) -> None:
        """Take the sound that follows, (n,). Cheap: no model runs. Raises BufferError after 8 minutes without a pass."""
        if self._ended and len(pcm):
            self._open(repeated=0)
        while len(pcm):
            room = LONGEST_WINDOW - self._windows[-1].samples
            if not room:
                self._open(repeated=len(self._recent))
                self._windows[-1].heard.push(self._recent)
                continue
            part, pcm = pcm[:room], pcm[room:]
            self._windows[-1].heard.push(part)
            self._recent = np.concatenate((self._recent, part))[-OVERLAP:]
            self._pushed += len(part)

    def mark_pause(self, at: int) -> None:
        """The caller paused at sample `at` of the turn, and what has been pushed ends in that pause: a good place to cut a long turn."""
        if at - self._windows[-1].start >= _PAUSE_WINDOW:
            self._ended = True

    def due(self) -> bool:
        """Whether there is enough new sound for another pass, or a window to close."""
        return self._pushed - self._heard >= _INTERVAL or len(self._windows) > 1

    def hypothesise(self) -> Work[Hypothesis]:
        """One pass over the turn so far."""
        words, score = yield from self._pass()
        settled = self._settler.push(words, self._heard, sure=score.confidence >= _SURE)
        return Hypothesis(settled.text, settled.new, settled.provisional, score.confidence, "".join(words).strip(), score.speech)

    def finish(self) -> Work[Transcript]:
        """The final pass; nothing may be pushed afterwards. Costs nothing where the last pass has heard everything."""
        words, score = yield from self._pass()
        revised = self._settler.missing_from(words)
        text = "".join(words).strip()
        return Transcript(text, score.confidence, self._language, self._pushed / SAMPLE_RATE, revised, score.speech)

    def _pass(self) -> "Work[tuple[list[str], _Score]]":
        """All words so far, and how sure they are."""
        while True:
            window = self._windows[0]
            decoding, heard = yield from window.heard.decode(self._language)
            closed = window is not self._windows[-1]
            if closed and heard < window.samples:  # filled and closed while this was under way
                continue
            speech = self._speech_in(decoding, window.start, window.start + heard)
            words, score = self._joined(window, decoding, speech), self._score.plus(decoding, speech)
            if not closed:
                self._heard = window.start + heard
                return words, score
            self._words, self._score = words, score
            self._windows.popleft()

    def _joined(self, window: Window, decoding: Decoding, speech: float) -> list[str]:
        words = split_words(self._recogniser.text(decoding.tokens)) if speech >= _SPOKEN else []
        return join_overlap(self._words, words, repeats=window.repeats) if self._words else begun(words)

    def _open(self, repeated: int) -> None:
        """Begin a window whose first `repeated` samples are the last of the one before."""
        followed = self._followed()
        if max(len(self._windows), len(followed or ())) == _MOST_WINDOWS:
            raise BufferError(f"{_MOST_WINDOWS} windows of sound wait for a pass")
        self._windows.append(Window(self._pushed - repeated, repeated > 0, self._recogniser.window()))
        if followed is not None:
            followed.append(self._windows[-1])
        self._ended = False


@dataclass(frozen=True, slots=True)
class _Score:
    """Log-probabilities of tokens, summed, and the highest probability of speech."""

    total: float = 0.0
    tokens: int = 0
    speech: float = 0.0

    @property
    def confidence(self) -> float:
        """The (geometric) mean probability of a token; 0 where there is none."""
        return math.exp(self.total / self.tokens) if self.tokens else 0.0

    def plus(self, decoding: Decoding, speech: float) -> "_Score":
        count = len(decoding.tokens) if speech >= _SPOKEN else 0
        return _Score(self.total + count * decoding.log_probability, self.tokens + count, max(self.speech, speech))
