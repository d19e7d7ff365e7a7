"""What synthetic callers say: sentences that are finished, and sentences broken off. From templates, and none of them is in the
list that `benchmarks.turn_taking` reports."""

import random
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

__all__ = ["Sentence", "sentences"]


class Sentence(NamedTuple):
    """`finished` False: the caller is about to go on."""

    text: str
    finished: bool


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


_OPENINGS: Final = _listed(
    """I want to cancel|I need to change|we would like to move|could you check|please confirm|I'm calling about|my son forgot
    |they never delivered|can you find|I still have|you can keep|she asked me about|let's book|I already paid for|he is waiting for
    |remember to bring|I can't open|who ordered|where did you put|I have never seen|would you describe|there is no way to use
    |somebody broke|I'm not happy with|my neighbour borrowed|we talked about|did anyone find|I left|I'd rather sell|we might need"""
)
_OBJECTS: Final = _listed(
    """my subscription|the delivery address|our reservation|the second invoice|a dentist appointment|my train ticket|the hotel room
    |that broken lamp|the monthly plan|my sister's parcel|two large pizzas|a rental car|the garden chairs|an extra blanket|the password
    |some fresh flowers|the contract|a birthday cake|my laptop|the keys|that old piano|the swimming lesson|a bottle of wine|the radio
    |your newest catalogue|the yellow bicycle|a medium cappuccino|an iced tea|the wooden table|her winter coat"""
)
_TAILS: Final = _listed(
    """for next week|at the main station|on the twelfth|before lunch|with the blue cover|from Denver to Austin|without any fees
    |in the afternoon|by email|for my neighbour|near the river|after the holidays|until Friday night|under my name|as soon as possible
    |with a little honey|on the second floor|for three people|during the storm|with lots of ice|because it was late|in the big hall"""
)
_DANGLING: Final = _listed("and|because|for|with my|but|so that|or|if|to the|from|which|in the|and then|that the|of|until|with|about")
_FILLERS: Final = _listed("um...|uh...|let me see...|you know...|er...|how do you say...|what was it...")
_SHORT: Final = _listed(
    """Yes.|No.|Sure, why not.|Not yet.|Maybe later.|Tomorrow morning.|At nine thirty.|The red one.|Only one.|On Saturday.|I think so.
    |It depends.|In Chicago.|Because I'm late.|About ten minutes.|Two, please.|No, thanks.|That's right.|Fine.|Hello.|Never.|Of course.
    |Last summer.|Both of them.|With milk.|Medium, please.|My brother did.|In the kitchen."""
)
_QUESTIONS: Final = _listed(
    """What time do you open?|How much is it?|When will it arrive?|Is it far?|Do you speak Spanish?|Why is it so loud?
    |Which bus goes to the airport?|Who wrote this?|Can I come in?|Does it hurt?|Was it expensive?|Are we late?|Should I wait here?
    |How old is the building?|What does that mean?|Could it rain tomorrow?"""
)
_STARTS: Final = _listed("well,|so,|the thing is,|actually,|okay, so|honestly,|you see,|right, and|I mean,")
_STUMPS: Final = _listed("I|we|um...|it was...|I was going to|maybe we|she said|there is|I think the|my, uh...")
_CONDITIONS: Final = _listed("if|when|since|although|because|unless|while|after|before")
_CLAUSES: Final = _listed("the parcel is late|you are busy|I am at work|the shop is closed|nobody answers|it gets cold|the baby sleeps")
_COUNTS: Final = _listed("my number is|the code is|it is|the account is|my postcode is|the reference is|dial")
_DIGITS: Final = _listed("one|two|three|four|five|six|seven|eight|nine|zero")
_QUESTION_WORDS: Final = ("could", "can", "who", "where", "would you", "did")


def sentences(count: int, rng: random.Random) -> Iterator[Sentence]:
    """`count` of them, finished and broken off by turns."""
    for number in range(count):
        yield Sentence(_finished(rng), finished=True) if number % 2 else Sentence(_broken_off(rng), finished=False)


def _finished(rng: random.Random) -> str:
    match rng.choices(("plain", "short", "two", "number", "question"), (60, 12, 8, 8, 12))[0]:
        case "plain":
            return _plain(rng)
        case "short":
            return rng.choice(_SHORT)
        case "two":
            return f"{_plain(rng)} {_plain(rng)}"
        case "number":
            return _capital(f"{rng.choice(_COUNTS)} {_digits(rng, 3)}, {_digits(rng, 4)}.")
        case _:
            return rng.choice(_QUESTIONS)


def _plain(rng: random.Random) -> str:
    opening = rng.choice(_OPENINGS)
    words = [opening, rng.choice(_OBJECTS), *([rng.choice(_TAILS)] if rng.random() < 0.6 else [])]
    return _capital(" ".join(words)) + ("?" if opening.startswith(_QUESTION_WORDS) else ".")


def _broken_off(rng: random.Random) -> str:
    opening, thing, link = rng.choice(_OPENINGS), rng.choice(_OBJECTS), rng.choice(_DANGLING)
    forms: Sequence[tuple[str, int]] = (
        (opening, 10),
        (f"{opening},", 10),
        (f"{opening} the...", 10),
        (f"{opening} {thing} {link}", 14),
        (f"{opening} {thing} {link},", 12),
        (f"{opening} {thing}, {rng.choice(_FILLERS)}", 10),
        (f"{opening} {thing} {link}...", 9),
        (f"{opening} {thing}...", 6),
        (f"{rng.choice(_STARTS)} {rng.choice(_STUMPS)}", 6),
        (f"{rng.choice(_COUNTS)} {_digits(rng, rng.randint(2, 4))}...", 7),
        (f"{rng.choice(_CONDITIONS)} {rng.choice(_CLAUSES)},", 6),
    )
    return _capital(rng.choices([form for form, _ in forms], [weight for _, weight in forms])[0])


def _digits(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(_DIGITS) for _ in range(count))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
