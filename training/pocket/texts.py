"""What synthetic callers say to learn from: sentences of templates, words of the language model's vocabulary, and what the model itself
says as a person would. None is a text of the recordings' `dev` part: those are left out (`allowed`)."""

import random
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer

from streaming.models.llama import Llama, Stretch
from streaming.normalise import normalise
from streaming.phonemes import Lexicon

__all__ = ["Templates", "Vocabulary", "allowed", "imagined", "plain", "spelled_out"]

_PHRASES: Final = Path(__file__).with_name("phrases.toml")
_SLOT: Final = re.compile(r"\{(\w+)\}")
_CALLER: Final = "<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n<|im_start|>user\n"
_TOKENS: Final = 40
"""Of an imagined sentence, at most."""


def plain(text: str) -> str:
    """`text` as its words alone, to compare by."""
    return " ".join(word.lower() for token in normalise(text) for word in token.words)


def spelled_out(text: str) -> str:
    """`text` with numbers and signs as the words that are said for them, and with no marks but . , ? and ': "At 7!" is "At seven."."""
    parts, end = [], 0
    for token in normalise(text):
        written = text[token.start : token.end]
        said = written if re.fullmatch(r"[A-Za-z'\u2019-]+\.?", written) else " ".join(token.words)
        parts += [text[end : token.start], said]
        end = token.end
    said = "".join([*parts, text[end:]]).replace("\u2019", "'").replace("!", ".").replace(";", ",")
    return re.sub(r"\s+", " ", re.sub(r"[^A-Za-z'.,? ]", " ", said)).strip()


class Vocabulary:
    """The words of a tokenizer that are one token each and that a lexicon has: `words`, the commonest first, and `names`."""

    def __init__(self, tokenizer: Tokenizer, lexicon: Lexicon) -> None:
        numbers: Mapping[str, int] = tokenizer.get_vocab()
        whole = [token[1:] for token, _ in sorted(numbers.items(), key=lambda item: item[1]) if re.fullmatch("Ġ[A-Za-z]{2,}", token)]
        spoken = [word for word in whole if word.lower() in lexicon]
        self.words: Final = [word for word in spoken if word.islower()]
        rank = {word: numbers[f"Ġ{word}"] for word in spoken}
        self.names: Final = [word for word in spoken if word.istitle() and len(word) > 2 and word.lower() not in rank]


class Templates:
    """Sentences with their slots filled. Words and names come round: each as often as any other before one comes again."""

    def __init__(self, vocabulary: Vocabulary, rng: random.Random, commonest: int) -> None:
        """Words are the `commonest` of the vocabulary."""
        phrases = tomllib.loads(_PHRASES.read_text(encoding="utf-8"))
        self.openings: Final[list[str]] = phrases["openings"]
        self._sentences: list[str] = phrases["sentences"]
        self._words: list[str] = phrases["words"]
        self._slots = {name: text.split("|") for name, text in phrases["slots"].items()}
        self._rng = rng
        self._round = {"word": self._rounds(vocabulary.words[:commonest]), "name": self._rounds(vocabulary.names)}

    def sentence(self) -> str:
        """What a person might say to an assistant."""
        return self._filled(self._rng.choice(self._sentences))

    def words(self) -> str:
        """Words that stand together by chance."""
        return self._filled(self._rng.choice(self._words))

    def _filled(self, template: str) -> str:
        text = _SLOT.sub(lambda slot: self._slot(slot.group(1)), template)
        text = re.sub(r"\ba (?=[aeiou])", "an ", text)
        return text[0].upper() + text[1:]

    def _slot(self, name: str) -> str:
        return next(self._round[name]) if name in self._round else self._rng.choice(self._slots[name])

    def _rounds(self, words: Sequence[str]) -> Iterator[str]:
        while True:
            yield from self._rng.sample(words, len(words))


def imagined(model: Llama, tokenizer: Tokenizer, openings: Sequence[str], seed: int, temperature: float = 1.0) -> list[str]:
    """How the language model goes on from each of `openings` as the person who speaks to it, up to the first end of a sentence; what is no
    speech (lists, code, another language) is left out."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [tokenizer.encode(_CALLER + opening).ids for opening in openings]
    caches = [model.new_cache(len(prompt) + _TOKENS) for prompt in prompts]
    said: list[list[int]] = [[] for _ in prompts]
    waiting = list(range(len(prompts)))
    stretches = [Stretch(prompt, 0, cache) for prompt, cache in zip(prompts, caches, strict=True)]
    for count in range(_TOKENS):
        scores = torch.stack([row for row in model.forward([stretches[index] for index in waiting]) if row is not None])
        scores, choices = (scores / temperature).topk(60)
        picks = choices.gather(1, torch.multinomial(scores.softmax(-1), 1, generator=generator))[:, 0].tolist()
        for index, pick in zip(waiting, picks, strict=True):
            said[index].append(pick)
            stretches[index] = Stretch([pick], len(prompts[index]) + count, caches[index])
        waiting = [index for index in waiting if not re.search(r"[.?!\n<|]", tokenizer.decode(said[index][-2:], skip_special_tokens=False))]
        if not waiting:
            break
    texts = [opening + tokenizer.decode(tokens) for opening, tokens in zip(openings, said, strict=True)]
    return [text for text in map(_first_sentence, texts) if text]


def _first_sentence(text: str) -> str:
    """The first sentence of `text`; nothing where it is not one that a person would say."""
    match = re.match(r"[A-Za-z0-9',:; %$-]{6,160}[.?!]", text)
    said = match.group() if match else ""
    return said if 3 <= len(said.split()) <= 28 and not re.search(r"['-]{2}|  ", said) else ""


def allowed(texts: Sequence[str], forbidden: Collection[str]) -> list[str]:
    """`texts` without repetitions and without those whose words are one of `forbidden` (`plain`)."""
    found: dict[str, str] = {}
    for text in texts:
        words: Any = plain(text)
        if words and words not in forbidden:
            found.setdefault(words, text)
    return list(found.values())
