"""What the shape of the words says about whether they are all: of the caller's turn so far, and of what the agent asked for.

English word lists; of other languages only the punctuation speaks. The recogniser punctuates from what it heard up to the pause, so a full
stop is weak evidence, an ellipsis or a comma strong.
"""

import re
from enum import Enum
from typing import Final

__all__ = ["Asked", "Shape", "asked_for", "shape_of"]


class Shape(Enum):
    """How a turn's words end."""

    UNKNOWN = "no words are known"
    PLAIN = "in a word, without punctuation"
    CLOSED = "in a full stop or an exclamation mark"
    QUESTION = "in a question mark"
    DANGLING = "in a comma, an ellipsis or a word that wants another"
    COUNTING = "in digits, fewer than make a number"
    ANSWER = "they are a short answer, whole in itself"


class Asked(Enum):
    """What the agent's last words ask for."""

    NOTHING = "they are no question"
    CHOICE = "yes or no, or one of a few"
    NUMBER = "digits, or letters one by one"
    STORY = "as many words as the caller likes"
    OTHER = "something else"


def _phrases(listed: str) -> frozenset[str]:
    """Phrases separated by bars."""
    return frozenset(phrase.strip() for phrase in listed.split("|"))


_DANGLING: Final = frozenset(
    re.findall(
        r"\S+",
        """a an the and or but nor so because if unless until while although though than as that which who whose where when what how
        why whether
        to of for from with without into onto about at by in on between through under over
        my your his her its our their this these those some any every each no another
        i i'm i'd i'll i've you're we're they're he's she's it's there's that's what's let's
        is are was were am be been being do does did don't doesn't didn't has have had can could will would shall should may might must
        want need um uh er erm hmm mm like very really quite just also maybe perhaps actually basically well then plus""",
    )
)
"""Words after which English goes on far more often than it stops."""

_ANSWERS: Final = _phrases(
    """yes|yeah|yep|yup|no|nope|nah|sure|okay|ok|right|correct|exactly|absolutely|definitely|of course|never|always|maybe|thanks|thank you
    |please|yes please|no thanks|no thank you|yes thank you|that's right|that's correct|that's all|that's it|sounds good|go ahead|i do
    |i don't|i did|i didn't|it is|it isn't|hello|hi|bye|goodbye|never mind|stop|great|perfect"""
)

_DIGIT_WORDS: Final = _phrases("zero|oh|one|two|three|four|five|six|seven|eight|nine|double|triple")

_WHOLE_NUMBER: Final = 7
"""Digits that may be a whole telephone number; codes are shorter, and then silence decides."""

_NUMBER_TALK: Final = re.compile(r"\b(number|digits?|code|zip|postcode|phone|card|account|extension|pin|spell|e-?mail|letters?)\b")
_CHOICE: Final = re.compile(
    r"\b(do|does|did|is|are|was|were|can|could|will|would|shall|should|have|has|may)\s+(you|it|that|this|i|we|they|there|he|she|the|your|an?)\b[^?]*\?$"
)
_OPEN_QUESTION: Final = re.compile(r"(and |so |but )?(what|where|when|who|whose|which|how)\b")
_STORY: Final = re.compile(r"\b(tell me|describe|explain|walk me through|what happened|how did|how was|why|what do you think|your story)\b")


def shape_of(text: str, asked: Asked = Asked.NOTHING) -> Shape:
    """The shape of a turn that says `text` so far, in answer to what was `asked`."""
    stripped = text.strip().lower()
    words = [bare for word in stripped.split() if (bare := word.strip('.,!?…;:"'))]
    if not words:
        return Shape.UNKNOWN
    if stripped.endswith(("...", "…", ",", "-", "–", ";", ":")):
        return Shape.DANGLING
    if " ".join(words) in _ANSWERS:
        return Shape.ANSWER
    digits = _digits(words)
    if digits and digits < _WHOLE_NUMBER and (asked is Asked.NUMBER or _NUMBER_TALK.search(stripped)):
        return Shape.COUNTING
    if stripped.endswith(("?", "？")):
        return Shape.QUESTION
    if words[-1] in _DANGLING:
        return Shape.DANGLING
    return Shape.CLOSED if stripped.endswith((".", "!", "。", "！")) else Shape.PLAIN


def asked_for(text: str) -> Asked:
    """What a reply of the agent's that says `text` asks for: its last sentence decides."""
    sentences = re.split(r"(?<=[.!?])\s+", text.strip().lower())
    last = sentences[-1] if sentences else ""
    question = last.endswith("?")
    if _STORY.search(last):
        return Asked.STORY
    if not question and not re.match(r"(please|give|say|enter|spell)\b", last):
        return Asked.NOTHING
    if _NUMBER_TALK.search(last):
        return Asked.NUMBER
    if " or " in last or (_CHOICE.search(last) and not _OPEN_QUESTION.match(last)):
        return Asked.CHOICE
    return Asked.OTHER


def _digits(words: list[str]) -> int:
    """Digits, or letters one by one, in the run that ends the words; 0 where they end in a word."""
    count = 0
    for word in reversed(words):
        bare = word.replace("-", "").replace("'", "")
        if bare.isdigit():
            count += len(bare)
        elif bare in _DIGIT_WORDS or (len(bare) == 1 and bare.isalpha() and bare not in "ai"):
            count += 1
        else:
            break
    return count
