"""Whisper shared by all sessions: weights, vocabulary and greedy decoding with a draft.

What the previous pass found is run through the decoder in one go as the draft of this pass. Where the draft is the decoder's own first
choice it stands; at the first disagreement the decoder's choice is taken and what remains of the draft is tried again behind it. The result
is that of plain greedy decoding (speculative decoding, Leviathan et al. 2023, with a given draft), mostly for the price of one run.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from streaming.batching import Call, Work
from streaming.encoder import FRAME_SAMPLES, EncoderStation, hear_silence
from streaming.events import SAMPLE_RATE
from streaming.models.ctranslate2 import WeightsError
from streaming.models.whisper import AttentionCache, Silence, Span, Whisper, load_whisper

__all__ = ["Choose", "Decoding", "Recogniser", "load_recogniser", "looping_tokens"]

_TOKENS_PER_SECOND: Final = 10
"""More than fast speech needs in any language Whisper knows (English: 3 to 5); beyond it the decoder is looping."""

_DOUBT: Final = 0.1
_SILENT: Final = 0.68
"""Together: no speech at 0.68 for words that are certain, at 0.48 for words of a mean probability of 0.14 (e to the -2). Measured on 76
sounds without speech and 246 short recordings with it: words are left on 9 (mostly babies, dogs and sneezes), and 4 single words are
lost, misheard ones."""

_PROMPT: Final = 4
"""Tokens of the prompt: start, language, task, no times."""

_THIN: Final = 8
"""Positions of silence that are attended to as one: the attention of a short turn to 30 s of silence was half of its encoder's time."""

_ROWS_AT_ONCE: Final = 32
"""Tokens of one batch on a CPU: a run reads all weights, 12 ms, and 16 rows cost half as much again."""

_DEVICE_ROWS: Final = 2_048
"""The same on a GPU."""

_FRAMES_PER_SECOND: Final = SAMPLE_RATE // FRAME_SAMPLES

_SPARE_TOKENS: Final = 12
"""Allowed on top, so that a very short clip may be a long word."""

_GUESS: Final = 8
"""Draft tokens tried where it is not sure that the draft goes on: they cost a quarter of a run, and save eight."""

_REJOIN: Final = 8
"""How far ahead in the draft a single token is looked for; two in a row are looked for everywhere."""

_LOOP_UNIT: Final = 12
"""Longest run of tokens that is looked for when the decoder repeats itself."""

_LOOP_REPEATS: Final = 4
_LOOP_TOKENS: Final = 20
"""A run repeated this often, over this many tokens, is a loop of the decoder and no longer somebody's "no, no, no"."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """What the decoder found: text `tokens`, the mean natural logarithm of their probability (the end included), the probability it gave
    to there being no speech, and how many decoder runs it took."""

    tokens: tuple[int, ...]
    log_probability: float
    no_speech: float
    runs: int

    @property
    def speech(self) -> bool:
        """Whether there was speech at all. Whisper writes words on noise too, but neither surely nor without a doubt that it is speech."""
        return self.no_speech - _DOUBT * self.log_probability < _SILENT


@dataclass(slots=True, eq=False)
class Choose:
    """A `Call`: one decoder run over tokens standing at `start` (with the prompt, where that is 0). Afterwards it has the decoder's first
    choice after each token (behind the prompt), their log-probabilities, and at the start the probability of no speech."""

    station: "Recogniser"
    tokens: list[int]
    start: int
    cache: AttentionCache
    audio: AttentionCache
    heard: int
    tokens_after: list[int] = field(default_factory=list)
    logs_after: list[float] = field(default_factory=list)
    no_speech: float = 0.0

    @property
    def rows(self) -> int:
        """Tokens."""
        return len(self.tokens)


class Recogniser:
    """The model and its vocabulary. Holds nothing of a session: one serves all."""

    def __init__(
        self, model: Whisper, tokenizer: Tokenizer, suppressed: Sequence[int], suppressed_first: Sequence[int], thin: int = _THIN
    ) -> None:
        """`suppressed` tokens are never chosen (non-speech), `suppressed_first` not as the first (blank, end); `thin` positions of silence
        are attended to as one. Raises WeightsError where the vocabulary is not Whisper's."""
        self.model: Final = model
        # What encoder and decoder make of silence, at every position: it follows the sound of every stream.
        silence, frames = hear_silence(model.encoder)
        self.encoder: Final = EncoderStation(model.encoder, Silence(silence, thin))
        audio_silence = model.decoder.new_audio_cache()
        with torch.inference_mode():
            model.decoder.listen(frames, 0, audio_silence)
        self._audio_silence = Silence(audio_silence, thin)
        self._tokenizer = tokenizer
        self._start = self._special("<|startoftranscript|>")
        self._task = (self._special("<|transcribe|>"), self._special("<|notimestamps|>"))
        self._end = self._special("<|endoftext|>")
        self._no_speech = self._special("<|nocaptions|>", "<|nospeech|>")
        # Added to the scores, shape (vocabulary,): everything above the end of text is a command or a time.
        self._bias = torch.zeros(model.shape.vocabulary)
        self._bias[torch.tensor([t for t in suppressed if t != self._end], dtype=torch.long)] = -torch.inf
        self._bias[self._end + 1 :] = -torch.inf
        self._first_bias = torch.zeros(model.shape.vocabulary)
        self._first_bias[torch.tensor(list(suppressed_first), dtype=torch.long)] = -torch.inf

    def language(self, hint: str | None) -> str:
        """The language to decode with: the hint without its region ("en-GB" is "en"), "en" for none. Raises ValueError for one that
        Whisper does not know."""
        language = (hint or "en").lower().replace("_", "-").split("-")[0]
        # Every code has two or three letters, no other command of Whisper's vocabulary has so few.
        if len(language) > 3 or self._tokenizer.token_to_id(f"<|{language}|>") is None:
            raise ValueError(f"the recogniser knows no language {hint!r}")
        return language

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as text, without the space in front; an unfinished character at the end is left out."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip().rstrip("\ufffd")

    def decode(self, audio: AttentionCache, heard: int, language: str, draft: Sequence[int]) -> Work[Decoding]:
        """Transcribe `audio`, whose first `heard` frames hold sound; silence follows. `draft` is what is expected, for speed only."""
        prompt = [self._start, self._special(f"<|{language}|>"), *self._task]
        budget = min(self.model.shape.text_positions - _PROMPT - 1, heard * _TOKENS_PER_SECOND // _FRAMES_PER_SECOND + _SPARE_TOKENS)
        cache = self.model.decoder.new_cache()
        expected = _Draft(draft)
        rest = expected.begin(budget)
        call = Choose(self, [*prompt, *rest], 0, cache, audio, heard)
        yield call
        no_speech = call.no_speech
        tokens: list[int] = []
        logs: list[float] = []
        runs = 1
        while True:
            agreed = next((n for n, token in enumerate(rest) if token != call.tokens_after[n]), len(rest))
            for token, log in zip(call.tokens_after[: agreed + 1], call.logs_after, strict=False):
                tokens.append(token)
                logs.append(log)
                if token == self._end or len(tokens) == budget or looping_tokens(tokens):
                    # One at a time, so that a draft never gets further than decoding without it would.
                    return self._decoding(tokens, logs, no_speech, runs)
            rest = expected.rejoin(agreed, tokens)[: budget - len(tokens)]
            call = Choose(self, [tokens[-1], *rest], _PROMPT + len(tokens) - 1, cache, audio, heard)
            yield call
            runs += 1

    def _decoding(self, tokens: list[int], logs: list[float], no_speech: float, runs: int) -> Decoding:
        text = tokens[: len(tokens) - looping_tokens(tokens) - (tokens[-1] == self._end)]
        return Decoding(tuple(text), sum(logs) / len(logs), no_speech, runs)

    @property
    def rows_at_once(self) -> int:
        """See `Station`."""
        return _ROWS_AT_ONCE if self.model.decoder.positions.device.type == "cpu" else _DEVICE_ROWS

    @torch.inference_mode()
    def run(self, calls: Sequence[Call]) -> None:
        """See `Station`: decoder runs."""
        chooses = [call for call in calls if isinstance(call, Choose)]
        decoder = self.model.decoder
        spans = [Span(call.rows, call.start, call.cache, self._audio_silence, (call.audio, call.heard)) for call in chooses]
        tokens = torch.tensor([token for call in chooses for token in call.tokens], device=decoder.positions.device)
        scores = decoder.scores(decoder(tokens, spans)).to("cpu")  # (n, vocabulary)
        for call, part in zip(chooses, torch.split(scores, [call.rows for call in chooses]), strict=True):
            self._settle(call, part)

    def _settle(self, call: "Choose", scores: Tensor) -> None:
        """What the decoder chose, from its `scores` (rows, vocabulary)."""
        if call.start == 0:
            call.no_speech = float(scores[0].softmax(-1)[self._no_speech])
            scores = scores[_PROMPT - 1 :]
            scores[0] += self._first_bias
        best = (scores + self._bias).log_softmax(-1).max(-1)
        call.tokens_after, call.logs_after = best.indices.tolist(), best.values.tolist()

    def _special(self, *names: str) -> int:
        for name in names:
            token = self._tokenizer.token_to_id(name)
            if token is not None:
                return int(token)
        raise WeightsError(f"the vocabulary has no {names[0]}: not Whisper's")


class _Draft:
    """The tokens that are expected, and where among them decoding stands."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        # The first expected token that has not been tried, or was not chosen.
        self._at = 0

    def begin(self, most: int) -> list[int]:
        """What to try first: everything."""
        return self._tokens[:most]

    def rejoin(self, agreed: int, tokens: list[int]) -> list[int]:
        """What to try after `tokens`: of what was tried last `agreed` were right, and another one was chosen then."""
        self._at += agreed
        pair, token = tokens[-2:], tokens[-1]
        places = [n for n in range(2, len(self._tokens) + 1) if self._tokens[n - 2 : n] == pair]
        if places:
            # The last two tokens are expected somewhere: it probably goes on from there.
            self._at = min(places, key=lambda place: abs(place - self._at))
            return self._tokens[self._at :]
        ahead = self._tokens[self._at : self._at + _REJOIN]
        # Some were left out if the token comes soon, else it stands for another one: a guess, so only a little is tried.
        self._at += ahead.index(token) + 1 if token in ahead else 1
        return self._tokens[self._at : self._at + _GUESS]


def looping_tokens(tokens: list[int]) -> int:
    """How many tokens at the end repeat what stands before them; 0 where it is no loop."""
    for unit in range(1, _LOOP_UNIT + 1):
        repeated = 0
        while repeated + unit < len(tokens) and tokens[-1 - repeated] == tokens[-1 - repeated - unit]:
            repeated += 1
        if repeated + unit >= max(_LOOP_TOKENS, unit * _LOOP_REPEATS):
            return repeated
    return 0


def load_recogniser(folder: Path, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> Recogniser:
    """Read `model.bin`, `config.json` and `tokenizer.json` of a CTranslate2 Whisper. Raises WeightsError for files that are not that,
    OSError where one is missing."""
    config = json.loads((folder / "config.json").read_text())
    try:
        suppressed, first = (tuple(int(token) for token in config[key]) for key in ("suppress_ids", "suppress_ids_begin"))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{folder / 'config.json'}: no lists of suppressed tokens ({error!r})") from error
    tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return Recogniser(load_whisper(folder / "model.bin", dtype, device), tokenizer, suppressed, first)
