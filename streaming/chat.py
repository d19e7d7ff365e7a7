"""The prompt: a pure function of messages to tokens, in the model's markup.

Texts of people and tools never become control tokens. While the caller is still speaking the prompt ends in the words that have settled;
what follows them later (more words, or the end of the message) is appended, so that the prefill is not lost. A model that hears
(`streaming.audio_path`) is told a caller's turn by the rows of its sound, and while they speak by those that are committed; an item whose
sound is not there is told in words.

Where a conversation does not fit its budget the oldest messages are left out, the instructions and notes never. They are left out in steps,
down to half of the budget, and the steps depend on what came before only: so the prompt keeps its beginning from turn to turn, and what
is in the KV stays good.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from types import MappingProxyType
from typing import Final

from torch import Tensor

from streaming.audio_path import AudioPath, Sound
from streaming.decoder import LanguageModel, Prompt, Segment
from streaming.events import NOTES, ContextMessage, Role
from streaming.instructions import SPOKEN_INSTRUCTIONS
from streaming.markup import Markup

__all__ = ["ChatTemplate"]

_SPEAKERS: Final[Mapping[Role, str]] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool_call": "assistant",
    "tool_result": "user",
}
"""The speaker of each role. SmolLM2's template knows no tools: a call reads as what the assistant did, its result as told by the user."""

_REMEMBERED: Final = 2_048
"""Messages whose tokens are kept from one prompt to the next: as many as a conversation may have items, so that a prompt costs the new
ones only."""

_Content = tuple[str | Sound, ...]
"""What a message says, piece by piece; empty where it says nothing."""


_NO_SOUNDS: Final[Mapping[str, Sound]] = MappingProxyType({})


class ChatTemplate:
    """The template of one language model. `system` is said where a session gives no instructions of its own; `markup` is the model's own
    where it is None; `path` is how the model hears, None where it only reads."""

    def __init__(
        self, model: LanguageModel, system: str = SPOKEN_INSTRUCTIONS, markup: Markup | None = None, path: AudioPath | None = None
    ) -> None:
        self.path: Final = path
        self._model = model
        self._system = system
        markup = markup or model.markup
        self._within = markup.within
        self._begin = markup.tokens(model, markup.begin)
        self._opening = {speaker: markup.tokens(model, text) for speaker, text in markup.opening.items()}
        self._closing = {speaker: markup.tokens(model, text) for speaker, text in markup.closing.items()}
        # Tokens of closed messages by (speaker, text): a memory, not a state.
        self._known: dict[tuple[str, str], list[int]] = {}

    def reply_prompt(
        self, messages: tuple[ContextMessage, ...], texts: Mapping[str, str], budget: int, sounds: Mapping[str, Sound] = _NO_SOUNDS
    ) -> Prompt:
        """The prompt whose continuation is the assistant's reply. `texts` has the transcripts of the messages whose text is None, `sounds`
        the sound of the items that are heard rather than read. A message without either (nothing understood, nothing heard of a reply) is
        left out. At most `budget` tokens, unless the instructions alone are longer: of a last message that is too long its end is kept."""
        opened = self._opening["assistant"]
        head, body = self._fit(messages, texts, sounds, None, budget - len(opened))
        return _prompt([head, *self._following([*body, _Part("assistant", "", opened)])])

    def listening_prompt(
        self,
        messages: tuple[ContextMessage, ...],
        texts: Mapping[str, str],
        open_turn: str | Sound,
        budget: int,
        sounds: Mapping[str, Sound] = _NO_SOUNDS,
    ) -> Prompt:
        """A prompt for a caller who has so far said these settled words, or this sound: as far as words are tokenised alone, a prefix of
        the reply's prompt once the caller has finished."""
        head, body = self._fit(messages, texts, sounds, open_turn, budget)
        return _prompt([head, *self._following(body)])

    def _fit(
        self,
        messages: tuple[ContextMessage, ...],
        texts: Mapping[str, str],
        sounds: Mapping[str, Sound],
        open_turn: str | Sound | None,
        budget: int,
    ) -> tuple["_Part", list["_Part"]]:
        """Instructions and notes, then as many of the last messages as fit, then the caller's open turn, if there is one."""
        leading = messages[:1] if messages and messages[0].role == "system" and messages[0].item_id != NOTES else ()
        noted = tuple(message for message in messages[len(leading) : len(leading) + 1] if message.item_id == NOTES)
        instructions = (leading and _text(leading[0], texts)) or self._system
        first = [instructions, *(text for one in noted if (text := _text(one, texts)))]
        head = self._head(first)
        said = _turns([(message, self._said(message, texts, sounds)) for message in messages[len(leading) + len(noted) :]])
        opening: _Content = ()
        if open_turn is not None and said and said[-1][0].role == "user":  # a wrong start of ours: the turn goes on
            opening = said.pop()[1]
        rest = [self._part(message, content) for message, content in said]
        if open_turn is not None:
            rest.append(self._open_part(_joined(opening, (open_turn,))))
        room = max(0, budget - len(head.tokens) - (len(self._closing["user"]) if self._within else 0))
        body = rest[_first_kept([len(part.tokens) for part in rest], room) :]
        if len(body) == 1 and len(body[0].tokens) > room:  # a single message, longer than everything that fits
            body = [body[0].ending(room)]
        return head, body

    def _head(self, texts: Sequence[str]) -> "_Part":
        """Instructions and notes; the opening of the user's message too, where that holds them."""
        if not self._within:
            return _Part("system", "", [*self._begin, *(token for text in texts for token in self._closed("system", text))])
        tokens = [*self._begin, *self._opening["system"]]
        for text in texts:
            tokens += [*self._model.encode(text), *self._closing["system"]]
        return _Part("system", "", tokens)

    def _following(self, parts: Sequence["_Part"]) -> Sequence["_Part"]:
        """`parts` behind a head that has opened a message of the user: the first of them goes on with it, or closes it."""
        if not self._within or not parts:
            return parts
        first, *others = parts
        goes_on = _SPEAKERS[first.role] == "user"
        tokens = first.tokens[len(self._opening["user"]) :] if goes_on else [*self._closing["user"], *first.tokens]
        return [replace(first, tokens=tokens), *others]

    def _said(self, message: ContextMessage, texts: Mapping[str, str], sounds: Mapping[str, Sound]) -> _Content:
        """What a message says: the caller's by its sound, where the model hears and there is one that has rows."""
        text = _text(message, texts)
        sound = sounds.get(message.item_id) if self.path is not None and message.role == "user" else None
        sound = sound if sound is not None and sound.tokens else None
        words = (text,) if text and (sound is None or (self.path is not None and self.path.words)) else ()
        return words if sound is None else (sound, *words)

    def _part(self, message: ContextMessage, content: _Content) -> "_Part":
        """A message that is over."""
        speaker = _SPEAKERS[message.role]
        if len(content) == 1 and isinstance(content[0], str):
            return _Part(message.role, message.item_id, self._closed(speaker, content[0]), len(self._opening[speaker]))
        part = self._open_part(content)
        after = self._mark(content[-1].ordinal, after=True) if isinstance(content[-1], Sound) else []
        return replace(part, role=message.role, item_id=message.item_id, tokens=[*part.tokens, *after, *self._closing[speaker]])

    def _open_part(self, content: _Content) -> "_Part":
        """The caller's message as far as it goes: what follows its last piece is not there yet."""
        tokens, rows = [*self._opening["user"]], {}
        leading = len(tokens)
        for index, piece in enumerate(content):
            if isinstance(piece, str):
                tokens += self._model.encode(piece)
                continue
            tokens += self._mark(piece.ordinal)
            leading = leading if index else len(tokens)
            tokens += piece.tokens
            rows.update(piece.rows)
            tokens += self._mark(piece.ordinal, after=True) if index + 1 < len(content) else []
        return _Part("user", "", tokens, leading, rows)

    def _mark(self, ordinal: int, *, after: bool = False) -> list[int]:
        """What stands before or after a sound."""
        assert self.path is not None
        text = self.path.after if after else self.path.before
        return Markup.tokens(self._model, text.replace("{number}", str(ordinal)))

    def _closed(self, speaker: str, text: str) -> list[int]:
        key = (speaker, text)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = [*self._opening[speaker], *self._model.encode(text), *self._closing[speaker]]
        return self._known[key]


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A message as tokens, of which the `leading` ones open it, and the rows among them by their numbers."""

    role: Role
    item_id: str
    tokens: list[int]
    leading: int = 0
    rows: Mapping[int, Tensor] = field(default_factory=dict)

    def ending(self, room: int) -> "_Part":
        """How it opens, and as much of its end as fits `room`."""
        kept = max(0, room - self.leading)
        return replace(self, tokens=[*self.tokens[: self.leading], *self.tokens[len(self.tokens) - kept :]])


def _text(message: ContextMessage, texts: Mapping[str, str]) -> str:
    """What a message reads; "" for one without words. One that was cut to what was heard ends like any other: for the model it is all that
    was said."""
    text = (texts.get(message.item_id, "") if message.text is None else message.text).strip()
    match message.role:
        case "tool_call":
            return f"I call {message.name} with {text or '{}'}."
        case "tool_result":
            return f"Result of {message.name or 'the call'}: {text or 'nothing'}"
        case _:
            return text


def _turns(said: Sequence[tuple[ContextMessage, _Content]]) -> list[tuple[ContextMessage, _Content]]:
    """The messages that say something; of the caller, those with nothing between them are one turn: what we began to answer was not
    heard."""
    turns: list[tuple[ContextMessage, _Content]] = []
    for message, content in said:
        if content and turns and message.role == "user" == turns[-1][0].role:
            turns[-1] = (message, _joined(turns[-1][1], content))
        elif content:
            turns.append((message, content))
    return turns


def _joined(before: _Content, after: _Content) -> _Content:
    """One message of two; words that meet become one text."""
    if before and after and isinstance(before[-1], str) and isinstance(after[0], str):
        return (*before[:-1], f"{before[-1]} {after[0]}".strip(), *after[1:])
    return (*before, *after)


def _prompt(parts: Sequence[_Part]) -> Prompt:
    ends = accumulate(len(part.tokens) for part in parts)
    segments = tuple(Segment(part.role, part.item_id, end) for part, end in zip(parts, ends, strict=True))
    rows = {number: row for part in parts for number, row in part.rows.items()}
    return Prompt([token for part in parts for token in part.tokens], segments, rows)


def _first_kept(lengths: list[int], room: int) -> int:
    """The first message that is kept of messages with these token counts. Read in order: whenever they outgrow `room`, the oldest go until
    they fill half of it. The last one always stays."""
    first = held = 0
    for index, length in enumerate(lengths):
        held += length
        if held > room:
            while first < index and held > room // 2:
                held -= lengths[first]
                first += 1
    return first
