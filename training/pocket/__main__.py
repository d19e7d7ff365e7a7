"""Trains the projector, `streaming/bundles/parts/pocket-projector/projector.safetensors`, from nothing:

    python -m training.pocket [stage ...] [--data ../shared/data] [--device cpu] [--out FILE]

Stages, all of them in this order where none is named: `texts` (what synthetic callers say), `hear` (their speech and the recordings, as
Whisper's encoder hears them), `ctc` (the fit) and `export`. Each goes on where it was stopped, keeps what it made in the cache folder, and
costs nothing when that is there. Seeded: the same machine makes the same file. It needs what `vivavoce pull pocket pocket-kokoro` fetches.
"""

import argparse
import json
import os
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
from training.pocket.frames import CHUNK, WHOLE, hear, recipe, stored
from training.pocket.learner import Learner
from training.pocket.microphone import Microphone
from training.pocket.pieces import PieceTable, Speller
from training.pocket.sounds import Sounds
from training.pocket.speech import JOE, Voices, lines
from training.pocket.texts import Templates, Vocabulary, imagined, plain

_HERE: Final = Path(__file__).parent
_OUT: Final = _HERE.parents[1] / "streaming" / "bundles" / "parts" / "pocket-projector" / "projector.safetensors"
_SENTENCES: Final = 64
"""Imagined at once."""


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m training.pocket", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", choices=[*_STAGES, "all"], default="all", help="what to do; nothing named: all")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch's")
    parser.add_argument("--out", type=Path, default=_OUT, help="the file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pocket = Pocket(options.data, options.device, options.out)
    try:
        for stage in _STAGES if "all" in options.stages else options.stages:
            _STAGES[stage](pocket)
    except (DataError, FitError, WeightsError, OSError) as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit("stopped; started again it goes on from here") from None


class Pocket:
    """The stages, and what they share."""

    def __init__(self, data: Path, device: str, out: Path) -> None:
        self._data = data
        self._device = device
        self._out = out
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
        """Frames of all clips."""
        plans = [BlockPlan(*plan) for plan in self._settings["plans"]] or [WHOLE]
        for name, clips, seed in self._groups():
            files = hear(self._frames(name), clips, self._recogniser.encoder, plans, self._microphone, seed)
            for _ in track(files, f"hearing {name}", total=-(-len(clips) // CHUNK)):
                pass

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
        # As it was published: what changes it for blocks was trained to give the same frames.
        return load_recogniser(self._part("whisper-base", "model.bin").parent, device=self._device, adaptation=None)

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
            for name, count in settings["recordings"]["some"].items():
                some = recorded(self._data, self._lines, [name], speller.cased)
                rng.shuffle(some)
                clips += some[:count]
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


def _silent() -> Any:
    raise AssertionError("noises have no words")


_STAGES: Final[Mapping[str, Callable[[Pocket], None]]] = {
    "texts": Pocket.texts,
    "hear": Pocket.hear,
    "ctc": Pocket.ctc,
    "export": Pocket.export,
}


if __name__ == "__main__":
    main()
