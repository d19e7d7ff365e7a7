"""The stages of `training.pocket`, and what they share."""

import json
import multiprocessing
import random
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from rich.progress import track
from tokenizers import Tokenizer

from benchmarks.spoken_questions import questions
from streaming.bundle import default_places
from streaming.encoder import BlockPlan
from streaming.models.ctranslate2 import WeightsError
from streaming.models.fit import fit_tensors
from streaming.models.gguf import load_gguf
from streaming.models.llama import Llama
from streaming.models.pocket_projector import ProjectorShape
from streaming.phonemes import EnglishPhonemes
from streaming.recogniser import Recogniser, load_recogniser
from training.pocket.clips import Clip, DataError, dev_texts, manifest, noises, recorded, spoken
from training.pocket.export import export
from training.pocket.fit import Example, FitError, fit
from training.pocket.frames import CHUNK, hear, recipe, stored
from training.pocket.learner import Learner
from training.pocket.microphone import Microphone
from training.pocket.pieces import PieceTable, Speller
from training.pocket.sounds import Sounds
from training.pocket.speech import JOE, Voices, lines
from training.pocket.texts import Templates, Vocabulary, imagined, plain

__all__ = ["STAGES", "Pocket"]

_HERE: Final = Path(__file__).parent
_SENTENCES: Final = 64
"""Imagined at once."""


class Pocket:
    """Works on `data`, the folder of the recordings, and keeps what it makes in the cache folder; `out` is the file that comes of it."""

    def __init__(self, data: Path, device: str, out: Path, threads: int = 1) -> None:
        self._data = data
        self._device = device
        self._out = out
        self._threads = threads
        self._places = default_places()
        self._folder = self._places.cache / "training" / "pocket"
        self._settings: dict[str, Any] = tomllib.loads((_HERE / "data.toml").read_text(encoding="utf-8"))
        self._fit: dict[str, Any] = tomllib.loads((_HERE / "ctc.toml").read_text(encoding="utf-8"))

    def texts(self) -> None:
        """What the language model imagines a person says."""
        folder, wanted, openings = self._imagined, self._settings["texts"]["imagined"], self._templates.openings
        folder.mkdir(parents=True, exist_ok=True)
        model, tokenizer = self._language_model
        for number in track(range(-(-wanted // _SENTENCES) * 2), "imagining"):
            if len(self._sentences()) >= wanted:
                break
            path = folder / f"{number:04}.json"
            if not path.is_file():
                chosen = random.Random(f"{self._settings['seed']} {number}").choices(openings, k=_SENTENCES)
                found = imagined(model, tokenizer, chosen, self._settings["seed"] * 1_000 + number)
                path.with_suffix(".part").write_text(json.dumps(found))
                path.with_suffix(".part").replace(path)

    def hear(self) -> None:
        """Frames of all clips, shared out to as many processes as there are threads. Raises DataError where one of them failed."""
        spawn = multiprocessing.get_context("spawn")
        others = [spawn.Process(target=_hear, args=(self._data, self._device, n, self._threads)) for n in range(1, self._threads)]
        for other in others:
            other.start()
        try:
            self.hear_share(0, self._threads)
        except BaseException:
            for other in others:
                other.terminate()
            raise
        finally:
            for other in others:
                other.join()
        if any(other.exitcode for other in others):
            raise DataError("a process that hears failed, as it says above; started again it goes on from there")

    def hear_share(self, share: int, of: int) -> None:
        """Frames of every clip whose file is this `share`'s, on one thread."""
        torch.set_num_threads(1)
        plans = [BlockPlan(*plan) for plan in self._settings["plans"]]
        for name, clips, seed in self._groups():
            files = range(share * CHUNK, len(clips), of * CHUNK)
            for start in track(files, f"hearing {name}", disable=share > 0):
                hear(self._frames(name), start, clips, self._recogniser.encoder, plans, self._microphone, seed)
        torch.set_num_threads(self._threads)

    def ctc(self) -> None:
        """The fit."""
        learner, _, examples = self._learner
        fit(learner, examples, self._fit["fit"], self._fit["seed"], self._checkpoint, self._recipe(examples), self._device)

    def export(self) -> None:
        """The file, from the checkpoint."""
        learner, table, examples = self._learner
        state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        if state["recipe"] != self._recipe(examples):
            raise FitError(f"{self._checkpoint} is of other settings or other data: run the stage ctc first")
        learner.load_state_dict(state["learner"])
        with torch.no_grad():
            sounds = learner.places()[:, learner.network.shape.embedding_width :]
        metadata = {
            "encoder": "Whisper base",
            "language_model": "SmolLM2-135M-Instruct",
            "recipe": state["recipe"],
            "step": str(state["step"]),
        }
        kept = fit_tensors(self._recogniser.model.encoder, self._language_model[0].weights.embedding)
        digest = export(self._out, learner.network, sounds, table, metadata, kept)
        print(f"wrote {self._out}, {self._out.stat().st_size} bytes, sha256 {digest}")

    @property
    def _imagined(self) -> Path:
        return self._folder / f"imagined-{recipe(self._settings['seed'], self._templates.openings)}"

    @property
    def _checkpoint(self) -> Path:
        return self._folder / "ctc.pt"

    @cached_property
    def _language_model(self) -> tuple[Llama, Tokenizer]:
        return load_gguf(self._part("smollm2-135m-instruct", "*.gguf"))

    @cached_property
    def _recogniser(self) -> Recogniser:
        return load_recogniser(self._part("whisper-base", "model.bin").parent, device=self._device)

    @cached_property
    def _phonemes(self) -> EnglishPhonemes:
        return EnglishPhonemes.load()

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self._language_model[1], self._phonemes.lexicon)

    @cached_property
    def _templates(self) -> Templates:
        return Templates(self._vocabulary, random.Random(0), self._settings["texts"]["words"])

    @cached_property
    def _lines(self) -> list[dict[str, Any]]:
        return manifest(self._data)

    @cached_property
    def _microphone(self) -> Microphone:
        return Microphone(self._settings["microphone"], noises(self._data, self._lines))

    def _part(self, name: str, pattern: str) -> Path:
        """A file of a bundle's part. Raises FileNotFoundError where it has not been fetched."""
        path = next((self._places.cache / "parts" / name).glob(pattern), None)
        if path is None:
            raise FileNotFoundError(f"{name} is not there: run `vivavoce pull pocket` and `vivavoce pull pocket-kokoro`")
        return path

    def _sentences(self) -> list[str]:
        return [text for path in sorted(self._imagined.glob("*.json")) for text in json.loads(path.read_text())]

    def _frames(self, name: str) -> Path:
        return self._folder / f"frames-{name}-{recipe(self._settings)}"

    def _groups(self) -> Iterator[tuple[str, list[Clip], int]]:
        """Clips by where they are from, and a seed."""
        settings, speller = self._settings, Speller(self._language_model[1])
        for seed in settings["recordings"]["seeds"]:
            rng = random.Random(seed)
            clips = recorded(self._data, self._lines, settings["recordings"]["sets"], speller.cased)
            clips += [Clip(f"noise {number} {seed}", "noise", "noise", "", _silent) for number in range(settings["recordings"]["noises"])]
            rng.shuffle(clips)
            yield f"recorded-{seed}", clips, seed
        asked = {plain(text) for text, _ in questions()}
        said, voices = lines(settings, self._vocabulary, self._sentences(), dev_texts(self._lines) | asked), Voices()
        for name in ("joe", "kokoro"):
            yield f"{name}-1", spoken([line for line in said if (line.voice == JOE) == (name == "joe")], voices), 1

    @cached_property
    def _learner(self) -> tuple[Learner, PieceTable, list[Example]]:
        """The model as it begins, its pieces, and what it learns from."""
        speller, sounds, settings = Speller(self._language_model[1]), Sounds(self._phonemes), self._fit
        heard = [one for name, *_ in self._groups() for one in stored(self._frames(name))]
        if not heard:
            raise DataError("nothing has been heard: run the stages texts and hear first")
        texts = [speller.tokens(one.text) for one in heard]
        table = speller.table(texts, settings["fit"]["commonest"])
        column = {token: number for number, token in enumerate(table.tokens)}
        phonemes = sounds.pieces(table.written)
        examples = [
            Example(one, [column[token] for token in tokens], sounds.text(one.text)) for one, tokens in zip(heard, texts, strict=True)
        ]
        torch.manual_seed(settings["seed"])
        rows = self._language_model[0].weights.embedding[list(table.tokens)].float()
        fitting = settings["fit"]
        return Learner(ProjectorShape(**settings["shape"]), rows, phonemes, fitting["others"], fitting["dropout"]), table, examples

    def _recipe(self, examples: Sequence[Example]) -> str:
        return recipe(self._settings, self._fit, len(examples), sum(len(example.heard.frames) for example in examples))


def _hear(data: Path, device: str, share: int, of: int) -> None:
    """One process of several that hear."""
    try:
        Pocket(data, device, data).hear_share(share, of)
    except (DataError, WeightsError, OSError) as error:
        raise SystemExit(str(error)) from error


def _silent() -> Any:
    raise AssertionError("noises have no words")


STAGES: Final[Mapping[str, Callable[[Pocket], None]]] = {
    "texts": Pocket.texts,
    "hear": Pocket.hear,
    "ctc": Pocket.ctc,
    "export": Pocket.export,
}
