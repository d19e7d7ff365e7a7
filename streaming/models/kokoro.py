"""Kokoro-82M (hexgrad/Kokoro-82M, a StyleTTS 2 of Li et al. 2023, in ONNX): phoneme symbols and a voice in, durations and samples out.

One model has many voices: each is a table of styles, one for every number of tokens. Nothing in it can be cut into stretches (its norms
look at the whole utterance), so an utterance is made at once, and sounds as soon as it is whole: short pieces are what makes it prompt.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from streaming.audio import Samples
from streaming.models.onnx_graph import Graph
from streaming.models.onnx_session import session_of
from streaming.models.piper import Utterance

__all__ = ["KokoroModel", "voices_in"]

_HOP: Final = 600
"""Samples of one step of a duration."""

_STYLES: Final = 510
"""Rows of a voice's table, one for each number of tokens, and so one more than the longest utterance."""

_STYLE_WIDTH: Final = 256

_USUAL: Final = "af_heart"
"""The voice that is spoken with where nobody asks for another: the best rated of the published ones."""

_PAIRS: Final = {"eɪ": "A", "aɪ": "I", "ɔɪ": "Y", "oʊ": "O", "aʊ": "W", "tʃ": "ʧ", "dʒ": "ʤ"}
_SINGLES: Final = {"ː": "", "g": "ɡ", "ɝ": "ɜɹ"}
"""IPA as our phonemes have it to Kokoro's symbols, two at a time and one."""


def voices_in(folder: Path) -> tuple[str, ...]:
    """The names of the voices in a folder, the usual one first; empty where it is not Kokoro's."""
    names = sorted(path.stem for path in folder.glob("*.bin")) if (folder / "vocab.json").is_file() else []
    return tuple(sorted(names, key=lambda name: name != _USUAL))


class KokoroModel:
    """All voices of a folder. Called by one thread at a time."""

    sample_rate: Final = 24_000
    whole: Final = True

    def __init__(self, session: onnxruntime.InferenceSession, ids: dict[str, int], styles: dict[str, npt.NDArray[np.float32]]) -> None:
        """`styles` are the voices by their names, [510, 256] each, of which the first is the usual one."""
        self._session = session
        self._ids = ids
        self._styles = styles
        self._tokens_input = next(given.name for given in session.get_inputs() if given.name in ("tokens", "input_ids"))

    @classmethod
    def load(cls, folder: Path, threads: int, gpu: int | None = None) -> "KokoroModel":
        """From a folder with one .onnx, `vocab.json` and a `.bin` for each voice, on the GPU of that number or the CPU. Raises OSError for
        a missing file, or where that GPU can't be used, and ValueError, naming it, for a file that is not Kokoro's."""
        models = sorted(folder.glob("*.onnx"))
        if len(models) != 1:
            raise FileNotFoundError(f"expected one .onnx in {folder}, found {len(models)}")
        try:
            vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
            ids = {str(symbol): int(number) for symbol, number in vocabulary.get("vocab", vocabulary).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / 'vocab.json'} is not the vocabulary of a Kokoro: {error}") from error
        names = voices_in(folder)
        if not names:
            raise FileNotFoundError(f"{folder} has no voice: put one there as NAME.bin")
        try:
            graph = Graph(models[0].read_bytes())
            rounded = {output for node in graph.nodes if node.kind == "Round" for output in node.outputs}
            (durations,) = [node.outputs[0] for node in graph.nodes if node.kind == "Clip" and node.inputs[0] in rounded]
            (audio,) = graph.outputs
            session = session_of(graph.part((), (audio, durations)), threads, gpu)
            return cls(session, ids, {name: _style(folder / f"{name}.bin") for name in names})
        except (ValueError, StopIteration) as error:
            raise ValueError(f"{models[0]} is no Kokoro, or its voices are another's: {error}") from error

    def voice_named(self, name: str) -> str:
        """The voice that a client's name stands for: its own, the one named so after its kind (`af_alloy`, "alloy"), or the usual."""
        if name in self._styles:
            return name
        return next((own for own in self._styles if name and own.partition("_")[2] == name.lower()), next(iter(self._styles)))

    def stream(self, symbols: Sequence[str], length_scale: float, _: object = None, name: str = "") -> Utterance:
        """Say `symbols` (one code point each) with the voice `name` stands for. `length_scale` 2.0 is twice as slow. When this returns, all
        of it has been made. What is longer than the model takes is made in parts, cut between words."""
        spelt, last_of, dropped = self._spell(symbols)
        styles = self._styles[self.voice_named(name)]
        sounds: list[Samples] = []
        ends: list[npt.NDArray[np.int64]] = []
        made = 0
        for start, end in _parts(spelt, self._ids.get(" ")):
            audio, frames = self._run(spelt[start:end], styles, length_scale)
            # The token that begins an utterance, then its own, then the one that ends it.
            ends.append(made + np.cumsum(frames[:-1])[0 if start == 0 else 1 :] * _HOP)
            sounds.append(audio)
            made += len(audio)
        token_ends = np.concatenate(ends)
        return Utterance(made, token_ends[np.asarray(last_of, np.int64) + 1], dropped, iter(sounds))

    def _spell(self, symbols: Sequence[str]) -> tuple[list[int], list[int], int]:
        """Tokens, for each symbol its last one (-1 before the first), and how many symbols are not known."""
        spelt: list[int] = []
        last_of: list[int] = []
        dropped = at = 0
        while at < len(symbols):
            pair = "".join(symbols[at : at + 2])
            taken = 2 if pair in _PAIRS else 1
            written = _PAIRS[pair] if taken == 2 else _SINGLES.get(symbols[at], symbols[at])
            known = [self._ids[letter] for letter in written if letter in self._ids]
            dropped += taken if len(known) < len(written) else 0
            spelt += known
            last_of += [len(spelt) - 1] * taken
            at += taken
        return spelt, last_of, dropped

    def _run(self, tokens: Sequence[int], styles: npt.NDArray[np.float32], length_scale: float) -> tuple[Samples, npt.NDArray[np.int64]]:
        """Samples, and the frames of each token with one more at either end."""
        given = {
            self._tokens_input: np.array([[0, *tokens, 0]], np.int64),
            "style": styles[len(tokens)][None],
            "speed": np.array([1.0 / length_scale], np.float32),
        }
        audio, durations = self._session.run(None, given)
        sound, frames = np.asarray(audio, np.float32).reshape(-1), np.asarray(durations).reshape(-1).astype(np.int64)
        assert len(sound) == frames.sum() * _HOP, "the durations are not those of the sound"
        return sound, frames


def _style(path: Path) -> npt.NDArray[np.float32]:
    values = np.fromfile(path, np.float32)
    if len(values) != _STYLES * _STYLE_WIDTH:
        raise ValueError(f"{path.name} has {len(values)} numbers, a voice has {_STYLES * _STYLE_WIDTH}")
    return values.reshape(_STYLES, _STYLE_WIDTH)


def _parts(tokens: Sequence[int], space: int | None) -> list[tuple[int, int]]:
    """First and end token of each utterance, cut behind a space where there is one."""
    parts, start = [], 0
    while len(tokens) - start >= _STYLES:
        most = start + _STYLES - 1
        cut = next((at + 1 for at in range(most - 1, start, -1) if tokens[at] == space), most)
        parts.append((start, cut))
        start = cut
    return [*parts, (start, len(tokens))]
