"""What the projector hears, as words: its pieces written out, and how many of them are wrong. And what the language model makes of its rows
beside what it makes of the text.

    python -m training.pocket.measure [--data ../shared/data] [--whole]

prints it for recordings of the `dev` part. Sets with a person's text come first; of the others (and of 21 of the 30 questions) the text
is a recogniser's, Whisper's own, so that an error there may be either's.
"""

import argparse
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from server.eval.words import english_normaliser, word_distance
from streaming.audio import Samples
from streaming.bundle import default_places
from streaming.encoder import FRAME_SAMPLES, BlockPlan
from streaming.events import SAMPLE_RATE
from streaming.models.gguf import load_gguf
from streaming.models.llama import Llama, Stretch
from streaming.models.pocket_projector import PocketProjector, load_projector
from streaming.recogniser import Recogniser, load_recogniser
from training.pocket.clips import manifest, read
from training.pocket.frames import WHOLE, encoded
from training.pocket.texts import spelled_out

__all__ = ["Agreement", "Errors", "agreement", "transcribed", "word_errors"]

_SPOKEN: Final = [
    "asterisk_en",
    "azure",
    "azure_customspeech",
    "kyutai",
    "lhotse",
    "mfa",
    "misc",
    "pocketsphinx",
    "speech_recognition",
    "speechbrain",
]
"""Sets of clean speech of which some clips have a person's text."""

_OTHERS: Final[Mapping[str, int]] = {"librispeech_train100": 40, "barista": 40, "speechocean762": 60, "turn_pairs": 30}
"""Clips of other sets, chosen by a fixed seed. The text of speechocean762 is a person's."""

_LONGEST: Final = 26 * SAMPLE_RATE
_SYSTEM: Final = "You are a helpful voice assistant. Answer briefly."


@dataclass(frozen=True, slots=True)
class Errors:
    """`wrong` of `words`, in `clips`."""

    clips: int
    words: int
    wrong: int

    @property
    def rate(self) -> float:
        """Wrong words of each word said."""
        return self.wrong / max(1, self.words)


def transcribed(projector: PocketProjector, tokenizer: Tokenizer, frames: Tensor) -> str:
    """The words in the frames (n, frame width) of a whole sound."""
    stream = projector.stream()
    stream.provisional(frames)
    text: str = tokenizer.decode(stream.tail_tokens)
    return text.strip()


def word_errors(texts: Sequence[tuple[str, str]], normalise: Callable[[str], str]) -> Errors:
    """Of pairs of what was heard and what was said."""
    pairs = [(normalise(heard).split(), normalise(said).split()) for heard, said in texts]
    return Errors(len(pairs), sum(len(said) for _, said in pairs), sum(word_distance(heard, said) for heard, said in pairs))


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether the first token of the reply is the same, and how far the next-token distributions over the text's reply lie apart
    (Kullback-Leibler divergence from the text's, nats a token)."""

    first: bool
    divergence: float


def agreement(
    model: Llama, before: Sequence[int], text: Sequence[int], rows: Tensor, after: Sequence[int], ends: Sequence[int], most: int = 32
) -> Agreement:
    """Of a prompt that is `before`, a caller's turn and `after`: the turn once as `text` and once as `rows` [n, width]. The reply is the
    likeliest one to the text, up to `most` tokens or one of `ends`."""
    reply: list[int] = []
    prompt = [*before, *text, *after]
    cache = model.new_cache(len(prompt) + most)
    logits = model.logits(prompt, 0, cache)
    while len(reply) < most:
        reply.append(int(logits.argmax()))
        if reply[-1] in ends or len(reply) == most:
            break
        logits = model.logits(reply[-1:], len(prompt) + len(reply) - 1, cache)
    of_text = _following(model, [*prompt, *reply[:-1]], None, len(reply))
    of_sound = _following(model, [*before, *[-1] * len(rows), *after, *reply[:-1]], rows, len(reply))
    divergence = (of_text.exp() * (of_text - of_sound)).sum(-1).mean()
    return Agreement(int(of_sound[0].argmax()) == reply[0], float(divergence))


def _following(model: Llama, tokens: Sequence[int], rows: Tensor | None, count: int) -> Tensor:
    """Log-probabilities of what follows each of the last `count` tokens, [count, vocabulary]."""
    stretch = Stretch(tokens, 0, model.new_cache(len(tokens)), embedded=rows)
    return torch.log_softmax(model.all_logits([stretch])[-count:], -1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m training.pocket.measure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl")
    parser.add_argument("--projector", type=Path, default=Path("streaming/bundles/parts/pocket-projector/projector.safetensors"))
    parser.add_argument("--whole", action="store_true", help="the encoder as published, a clip in one run; else in its blocks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = default_places().cache / "parts"
    model, tokenizer = load_gguf(next((parts / "smollm2-135m-instruct").glob("*.gguf")))
    recogniser = load_recogniser(parts / "whisper-base", adaptation=None) if options.whole else load_recogniser(parts / "whisper-base")
    projector = load_projector(options.projector, model.weights.embedding)
    normaliser = english_normaliser()
    lines = manifest(options.data)
    for name, clips in _groups(options.data, lines):
        frames = [_frames(recogniser, WHOLE if options.whole else recogniser.plan, read(options.data / clip["path"])) for clip in clips]
        texts = [(transcribed(projector, tokenizer, heard), clip["text"]) for heard, clip in zip(frames, clips, strict=True)]
        errors = word_errors(texts, lambda text: normaliser(spelled_out(text)))
        print(f"{name}: {100 * errors.rate:.1f} % of {errors.words} words wrong, {errors.clips} clips", flush=True)
        if name == "questions":
            print(_replies(model, tokenizer, projector, frames, [clip["text"] for clip in clips]))


def _groups(data: Path, lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """English clips of the `dev` part with a text, by what they are measured as."""
    there = [line for line in lines if line["part"] == "dev" and line.get("text") and str(line.get("language") or "en").startswith("en")]
    asked = (data / "questions.txt").read_text().split()
    human = [line for line in there if line.get("text_source") == "human"]
    yield "human", [line for line in human if line["set"] in _SPOKEN]
    for name in _SPOKEN:
        yield f"human, {name}", [line for line in human if line["set"] == name]
    yield "questions", [line for line in there if line["path"] in asked]
    for name, count in _OTHERS.items():
        of_set = [line for line in there if line["set"] == name]
        random.Random(0).shuffle(of_set)
        yield name, of_set[:count]


def _frames(recogniser: Recogniser, plan: BlockPlan, pcm: Samples) -> Tensor:
    """Frames of a recording; one that is longer than the encoder hears is cut where it is quietest."""
    parts = []
    while len(pcm) > _LONGEST:
        late = pcm[18 * SAMPLE_RATE : _LONGEST]
        quiet = np.convolve(late[::16] ** 2, np.ones(200), "valid").argmin()
        cut = 18 * SAMPLE_RATE + 16 * (int(quiet) + 100)
        parts.append(encoded(recogniser.encoder, plan, pcm[:cut])[: cut // FRAME_SAMPLES])
        pcm = pcm[cut:]
    return torch.cat([*parts, encoded(recogniser.encoder, plan, pcm)]).float()


def _replies(model: Llama, tokenizer: Tokenizer, projector: PocketProjector, frames: Sequence[Tensor], texts: Sequence[str]) -> str:
    """How the replies to the sounds agree with those to their texts."""
    before = tokenizer.encode(f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n<|im_start|>user\n").ids
    after = tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n").ids
    ends = [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]
    found = []
    for heard, text in zip(frames, texts, strict=True):
        rows = projector.stream().provisional(heard)
        found.append(agreement(model, before, tokenizer.encode(text).ids, rows, after, ends))
    same, far = sum(one.first for one in found), sum(one.divergence for one in found) / len(found)
    return f"  replies: the first token is the same for {same} of {len(found)}; {far:.2f} nats a token from the text's"


if __name__ == "__main__":
    main()
