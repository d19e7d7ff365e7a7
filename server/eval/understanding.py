"""What a bundle's language model makes of a recording by each way into it, in this process: the models of the engine, without its sessions.

`text` is the text on paper, what the model can do at best; `words` the transcript, as the recogniser writes it while it hears; `sound` the
rows of the audio path; `both` the rows with the transcript behind. Answers are greedy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Final, Literal

import torch
from torch import Tensor

from streaming.audio import Samples
from streaming.audio_path import Sound
from streaming.batching import completed
from streaming.chat import ChatTemplate
from streaming.engine import Parts
from streaming.events import ContextMessage
from streaming.sampling import Sampler
from streaming.text import TextDecoder
from streaming.transcriber import Transcriber

__all__ = ["PATHS", "Heard", "Path", "Reply", "Understanding", "divergence"]

Path = Literal["text", "words", "sound", "both"]
PATHS: Final[tuple[Path, ...]] = ("text", "words", "sound", "both")

_ITEM: Final = "item_1"


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """A recording, heard: its transcript, and its rows where the model has an audio path."""

    words: str
    confidence: float
    sound: Sound | None


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """A greedy answer, and the log-probabilities of its first token over the vocabulary, float32 (vocabulary,)."""

    text: str
    first_token: int
    first: Tensor


class Understanding:
    """A bundle's models, one recording after another."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._writer = parts.writer
        path = parts.writer.template.path
        self._templates: dict[Path, ChatTemplate] = {name: ChatTemplate(parts.writer.model) for name in ("text", "words")}
        if path is not None:
            self._templates["sound"] = ChatTemplate(parts.writer.model, path=replace(path, words=False))
            self._templates["both"] = ChatTemplate(parts.writer.model, path=replace(path, words=True))

    @property
    def paths(self) -> list[Path]:
        """The ways there are into this model."""
        return [path for path in PATHS if path in self._templates]

    @torch.inference_mode()
    def hear(self, pcm: Samples) -> Heard:
        """Take a recording, float32 (n,) at 16 kHz, as a committed turn would be."""
        transcriber, path = Transcriber(self._parts.recogniser), self._writer.template.path
        sound = None if path is None else Sound(path.stream(transcriber), count(-1, -1), 1)
        transcriber.push(pcm)
        transcript = completed(transcriber.finish())
        if sound is not None:
            sound.push(pcm)
            sound.end()
            completed(sound.conclude())
        return Heard(transcript.text, transcript.confidence, sound)

    @torch.inference_mode()
    def answer(self, path: Path, heard: Heard | None, text: str, *, system: str = "", most_tokens: int = 32) -> Reply:
        """The answer to a recording, or to `text` where the path is "text"."""
        if path == "text":
            words, sounds = text, {}
        else:
            assert heard is not None
            words = heard.words
            sounds = {_ITEM: heard.sound} if heard.sound is not None else {}
        messages = (ContextMessage("system", "", system),) if system else ()
        return self._decode(self._templates[path], (*messages, ContextMessage("user", _ITEM, words)), sounds, most_tokens)

    def _decode(self, template: ChatTemplate, messages: tuple[ContextMessage, ...], sounds: Mapping[str, Sound], most_tokens: int) -> Reply:
        writer = self._writer
        sequence = writer.model.sequence()
        completed(writer.model.sync(sequence, template.reply_prompt(messages, {}, writer.budget, sounds)))
        assert sequence.logits is not None
        first = torch.log_softmax(sequence.logits.float(), dim=-1).cpu()
        sampler, decoder, greedy = Sampler(0), TextDecoder(writer.texts), replace(writer.sampling, temperature=0.0)
        said: list[int] = []
        text = ""
        while len(said) < most_tokens:
            token = sampler.choose(sequence.logits, said, greedy)
            if token in writer.model.end_tokens:
                break
            said.append(token)
            text += decoder.push(token)
            completed(writer.model.append(sequence, token))
        return Reply(text.strip(), int(first.argmax()), first)


def divergence(reference: Tensor, other: Tensor) -> float:
    """Kullback and Leibler's, of two log-probabilities (vocabulary,), in nats: what is lost by believing `other` where `reference` is
    true."""
    # A token that can't be said is minus infinity in both.
    said = torch.isfinite(reference)
    return float((reference[said].exp() * (reference[said] - other[said])).sum().clamp(min=0))
