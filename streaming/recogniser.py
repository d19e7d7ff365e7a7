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

from streaming.audio import Samples
from streaming.batching import Call, Work
from streaming.encoder import FRAME_SAMPLES, BlockPlan, EncoderStation, SoundStream, hear_silence
from streaming.events import SAMPLE_RATE
from streaming.models.ctranslate2 import WeightsError
from streaming.models.low_rank import STREAMING_ENCODER
from streaming.models.whisper import AttentionCache, Silence, Span, Whisper
from streaming.models.whisper_vocabulary import WhisperVocabulary, is_multilingual
from streaming.models.whisper_weights import load_whisper, whisper_file
from streaming.recognition import LONGEST_WINDOW, Decoding
from streaming.shared_frames import SharedFrames, Tail
from streaming.transfer import fetched, sent

__all__ = ["THIN", "Choose", "Decoding", "Recogniser", "WhisperWindow", "load_recogniser", "looping_tokens"]

_TOKENS_PER_SECOND: Final = 10
"""More than fast speech needs in any language Whisper knows (English: 3 to 5); beyond it the decoder is looping."""

THIN: Final = 8
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
    # How many of the tokens are the prompt, at the start.
    prompt: int = 0
    tokens_after: list[int] = field(default_factory=list)
    logs_after: list[float] = field(default_factory=list)
    no_speech: float = 0.0

    @property
    def rows(self) -> int:
        """Tokens."""
        return len(self.tokens)


class Recogniser:
    """The model and its vocabulary. Holds nothing of a session: one serves all."""

    def __init__(self, model: Whisper, vocabulary: WhisperVocabulary, thin: int = THIN) -> None:
        """`thin` positions of silence are attended to as one."""
        self.model: Final = model
        # What encoder and decoder make of silence, at every position: it follows the sound of every stream.
        silence, frames = hear_silence(model.encoder)
        self.encoder: Final = EncoderStation(model.encoder, Silence(silence, thin))
        audio_silence = model.decoder.new_audio_cache()
        with torch.inference_mode():
            model.decoder.listen(frames, 0, audio_silence)
        self._audio_silence = Silence(audio_silence, thin)
        self._vocabulary = vocabulary
        # Where the encoder's blocks are cut: as its weights were trained for, where they were.
        self.plan: Final = BlockPlan(**model.adaptation.plan) if model.adaptation else BlockPlan()

    def language(self, hint: str | None) -> str:
        """See `WordRecogniser`."""
        return self._vocabulary.language(hint)

    def text(self, tokens: Sequence[int]) -> str:
        """See `WordRecogniser`."""
        return self._vocabulary.text(tokens)

    def window(self) -> "WhisperWindow":
        """See `WordRecogniser`."""
        return WhisperWindow(self, self.plan)

    def decode(self, audio: AttentionCache, heard: int, language: str, draft: Sequence[int]) -> Work[Decoding]:
        """Transcribe `audio`, whose first `heard` frames hold sound; silence follows. `draft` is what is expected, for speed only."""
        prompt = self._vocabulary.prompt(language)
        budget = min(self.model.shape.text_positions - len(prompt) - 1, heard * _TOKENS_PER_SECOND // _FRAMES_PER_SECOND + _SPARE_TOKENS)
        cache = self.model.decoder.new_cache()
        expected = _Draft(draft)
        rest = expected.begin(budget)
        call = Choose(self, [*prompt, *rest], 0, cache, audio, heard, prompt=len(prompt))
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
                if token == self._vocabulary.end or len(tokens) == budget or looping_tokens(tokens):
                    # One at a time, so that a draft never gets further than decoding without it would.
                    return self._decoding(tokens, logs, no_speech, runs)
            rest = expected.rejoin(agreed, tokens)[: budget - len(tokens)]
            call = Choose(self, [tokens[-1], *rest], len(prompt) + len(tokens) - 1, cache, audio, heard)
            yield call
            runs += 1

    def _decoding(self, tokens: list[int], logs: list[float], no_speech: float, runs: int) -> Decoding:
        text = tokens[: len(tokens) - looping_tokens(tokens) - (tokens[-1] == self._vocabulary.end)]
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
        tokens = sent(torch.tensor([token for call in chooses for token in call.tokens]), decoder.positions.device)
        scores = fetched(decoder.scores(decoder(tokens, spans)))  # (n, vocabulary)
        for call, part in zip(chooses, torch.split(scores, [call.rows for call in chooses]), strict=True):
            self._settle(call, part)

    def _settle(self, call: "Choose", scores: Tensor) -> None:
        """What the decoder chose, from its `scores` (rows, vocabulary)."""
        if call.start == 0:
            call.no_speech = float(scores[0].softmax(-1)[self._vocabulary.no_speech])
            scores = scores[call.prompt - 1 :]
            scores[0] += self._vocabulary.first_bias
        best = (scores + self._vocabulary.bias).log_softmax(-1).max(-1)
        call.tokens_after, call.logs_after = best.indices.tolist(), best.values.tolist()


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


class WhisperWindow:
    """A `WordWindow`: one sequence of the encoder, whose `frames` others may read too."""

    def __init__(self, recogniser: Recogniser, plan: BlockPlan | None = None) -> None:
        """`plan` is where the encoder's blocks are cut."""
        self.frames: Final = SharedFrames(SoundStream(recogniser.encoder, plan))
        self._recogniser = recogniser
        # What the decoder hears: sound, then silence. Made with the first frames.
        self._audio: AttentionCache | None = None
        # Blocks of it that are final, and where they end.
        self._taken = 0
        self._end = 0
        # The last decoding, the draft of the next, and how many samples it heard.
        self._decoding: Decoding | None = None
        self._decoded = 0

    @property
    def samples(self) -> int:
        """See `WordWindow`."""
        return self.frames.samples

    def push(self, pcm: Samples) -> None:
        """See `WordWindow`."""
        self.frames.push(pcm)

    def decode(self, language: str) -> Work[tuple[Decoding, int]]:
        """See `WordWindow`."""
        if self._decoding is not None and self._decoded == self.samples:
            return self._decoding, self._decoded
        # Sound may be pushed while this is under way: what is encoded now is what this pass has heard.
        tail = yield from self.frames.tail()
        audio = self._listen(tail)
        draft = self._decoding.tokens if self._decoding else ()
        decoding = yield from self._recogniser.decode(audio, tail.start + len(tail.frames), language, draft)
        self._decoding, self._decoded = decoding, tail.samples
        return decoding, tail.samples

    @torch.inference_mode()
    def _listen(self, tail: Tail) -> AttentionCache:
        """The blocks that are new, and the tail behind them."""
        decoder = self._recogniser.model.decoder
        audio = self._audio = self._audio or decoder.new_audio_cache()
        while self._end < tail.start:
            block = self.frames.blocks[self._taken]
            decoder.listen(block, self._end, audio)
            self._taken += 1
            self._end += len(block)
        decoder.listen(tail.frames, tail.start, audio)
        return audio


def load_recogniser(
    folder: Path, dtype: torch.dtype | None = None, device: str = "cpu", adaptation: Path | None = STREAMING_ENCODER
) -> Recogniser:
    """A Whisper in any layout of `whisper_weights`, with its `tokenizer.json` and, but for OpenAI's, its `config.json` (and
    `generation_config.json`). The file `adaptation` changes the encoder that it was made for, Whisper base, to hear in small blocks.
    Raises WeightsError for files that are not that, OSError where one is missing."""
    file = whisper_file(folder)
    suppressed, first, multilingual = (None, None, None) if file.suffix == ".pt" else _settings(folder, published=file == folder)
    if not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(f"{folder / 'tokenizer.json'} is not there: take it from the Hugging Face repository of the same Whisper")
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises nothing narrower
        raise WeightsError(f"{folder / 'tokenizer.json'} is no tokenizer ({error})") from error
    model = load_whisper(file, dtype, device, adaptation)
    size, longest = model.shape.vocabulary, model.shape.audio_positions * FRAME_SAMPLES
    if longest < LONGEST_WINDOW + SAMPLE_RATE:
        raise WeightsError(f"{folder}: it hears {longest / SAMPLE_RATE:g} s at once, and windows of a turn are 28 s and silence")
    knows = is_multilingual(size) if multilingual is None else multilingual
    try:
        vocabulary = WhisperVocabulary(tokenizer, size, suppressed, first, multilingual=knows)
    except WeightsError as error:
        raise WeightsError(f"{folder}: {error}") from error
    return Recogniser(model, vocabulary)


def _settings(folder: Path, *, published: bool) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None, bool | None]:
    """What the folder says of tokens that are never chosen, and not as the first, and whether the model knows languages: None where a
    `published` checkpoint (Hugging Face's) leaves it to the reader. CTranslate2's says it always."""
    values: dict[str, object] = {}
    for name in ("config.json", "generation_config.json") if published else ("config.json",):
        path = folder / name
        if published and not path.is_file():
            continue
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise WeightsError(f"{path} is not JSON ({error})") from error
        values |= read if isinstance(read, dict) else {}
    keys = ("suppress_tokens", "begin_suppress_tokens") if published else ("suppress_ids", "suppress_ids_begin")
    multilingual = values.get("is_multilingual")
    lists = [_tokens(folder, values, key, optional=published) for key in keys]
    return lists[0], lists[1], multilingual if isinstance(multilingual, bool) else None


def _tokens(folder: Path, values: dict[str, object], key: str, *, optional: bool) -> tuple[int, ...] | None:
    """A list of tokens from a configuration; -1 in it, and an absent one where it is `optional`, stand for the usual ones."""
    value = values.get(key)
    if value is None and optional:
        return None
    if not isinstance(value, list) or not all(isinstance(token, int) for token in value):
        raise WeightsError(f"{folder / 'config.json'}: no lists of suppressed tokens ({key} is {value!r})")
    return None if -1 in value else tuple(value)
