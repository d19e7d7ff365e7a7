"""Words from a CTC model (Graves et al. 2006), wav2vec 2.0 or HuBERT: the likeliest symbol of every 20 ms, repetitions and blanks left out.

A `WordRecogniser` beside Whisper's: no language model, no punctuation, one language, and mostly one case. Rows are committed block by
block, so a pass costs the newest blocks and the tail, and what a committed row says is never decoded again.
"""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from streaming.batching import Work
from streaming.models.ctranslate2 import WeightsError
from streaming.models.waveform import load_waveform
from streaming.recognition import Decoding
from streaming.windowed import WindowedEncoder, WindowPlan
from streaming.word_window import StreamWindow

if TYPE_CHECKING:
    from transformers import Wav2Vec2CTCTokenizer

__all__ = ["CtcRecogniser", "CtcWindow", "load_ctc"]


class CtcRecogniser:
    """A `WordRecogniser`: an encoder whose rows are logits of symbols, and their vocabulary."""

    def __init__(self, encoder: WindowedEncoder, tokenizer: "Wav2Vec2CTCTokenizer", language: str = "en") -> None:
        """`language` is the one the model was trained on, a code without region. Raises WeightsError where the vocabulary is not the
        model's."""
        if len(tokenizer) != encoder.width:
            raise WeightsError(f"the vocabulary has {len(tokenizer)} symbols and the model {encoder.width}: not of one checkpoint")
        if tokenizer.pad_token_id is None:
            raise WeightsError("the vocabulary has no pad token, which is CTC's blank")
        self.encoder = encoder
        self.blank = int(tokenizer.pad_token_id)
        # Commands that no row of a trained model prefers. As in the reference they part no repetitions.
        self.skipped = frozenset(tokenizer.all_special_ids) - {self.blank}
        self._tokenizer = tokenizer
        self._language = language
        # Of two cases a model was trained on the one it has; capitals alone would be read as shouting.
        letters = "".join(token for token in tokenizer.get_vocab() if len(token) == 1)
        self._lowered = letters.upper() == letters

    def language(self, hint: str | None) -> str:
        """See `WordRecogniser`."""
        language = (hint or self._language).lower().replace("_", "-").split("-")[0]
        if language != self._language:
            raise ValueError(f"the recogniser knows no language {hint!r}: it knows {self._language!r} only")
        return language

    def text(self, tokens: Sequence[int]) -> str:
        """See `WordRecogniser`."""
        text: str = self._tokenizer.decode(list(tokens), group_tokens=False)
        text = " ".join(text.split())
        return text.lower() if self._lowered else text

    def window(self) -> "CtcWindow":
        """See `WordRecogniser`."""
        return CtcWindow(self)


class CtcWindow(StreamWindow):
    """A `WordWindow`."""

    def __init__(self, recogniser: CtcRecogniser) -> None:
        super().__init__(recogniser.encoder.stream())
        self._recogniser = recogniser
        # The likeliest symbol of every committed row, and its log-probability.
        self._symbols: list[tuple[int, float]] = []

    def _pass(self) -> Work[tuple[Decoding, int]]:
        runs = 0
        while (rows := (yield from self._stream.commit())) is not None:
            self._symbols += _likeliest(rows)
            runs += 1
        # Sound may be pushed while this is under way: what is encoded now is what this pass has heard.
        samples = self._samples
        rows = yield from self._stream.provisional()
        heard = [symbol for symbol in (*self._symbols, *_likeliest(rows)) if symbol[0] not in self._recogniser.skipped]
        spoken = [next(same) for token, same in groupby(heard, key=lambda symbol: symbol[0]) if token != self._recogniser.blank]
        logs = [log for _, log in spoken]
        log_probability = sum(logs) / len(logs) if logs else 0.0
        return Decoding(tuple(token for token, _ in spoken), log_probability, 0.0 if spoken else 1.0, runs + 1), samples


def _likeliest(rows: Tensor) -> list[tuple[int, float]]:
    """Logits [rows, symbols] to a symbol and its log-probability each."""
    best = rows.log_softmax(-1).max(-1)
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def load_ctc(
    folder: Path, language: str = "en", plan: WindowPlan | None = None, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> CtcRecogniser:
    """A `Wav2Vec2ForCTC` or `HubertForCTC` in Hugging Face's layout, with `vocab.json`, `preprocessor_config.json` and, if there,
    `tokenizer_config.json`. Raises WeightsError for what is not that, and without `transformers`; OSError."""
    path = folder / "vocab.json"
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error})") from error
    if not isinstance(vocabulary, dict) or not all(isinstance(number, int) for number in vocabulary.values()):
        raise WeightsError(f"{path} is no vocabulary of symbols: several languages in one file are not supported")
    encoder = WindowedEncoder(load_waveform(folder, ctc=True, dtype=dtype, device=device), plan)
    from transformers import Wav2Vec2CTCTokenizer

    try:
        return CtcRecogniser(encoder, Wav2Vec2CTCTokenizer.from_pretrained(folder, local_files_only=True), language)
    except WeightsError as error:
        raise WeightsError(f"{folder}: {error}") from error
