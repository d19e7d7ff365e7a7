"""What synthetic callers say."""

import random

from tokenizers import Tokenizer, models

from training.pocket.texts import Templates, Vocabulary, allowed, plain, spelled_out

WORDS = ("the", "cat", "water", "running", "Paris", "Anna", "zq")


class Words(set):
    """A lexicon that knows words and nothing of them."""

    def roles(self, _: str) -> dict[str, str]:
        return {"": ""}


def vocabulary() -> Vocabulary:
    numbers = {token: number for number, token in enumerate(("<unk>", *(f"Ġ{word}" for word in WORDS), "run", "Ġ."))}
    return Vocabulary(Tokenizer(models.WordLevel(numbers, "<unk>")), Words(word.lower() for word in WORDS if word != "zq"))


def test_words_and_names_are_the_tokens_that_can_be_said() -> None:
    found = vocabulary()
    assert found.words == ["the", "cat", "water", "running"]
    assert found.names == ["Paris", "Anna"]


def test_every_word_comes_before_one_comes_again() -> None:
    templates = Templates(vocabulary(), random.Random(1), commonest=3)
    templates._words = ["{word}."]
    assert sorted(templates.words() for _ in range(3)) == ["Cat.", "The.", "Water."]


def test_templates_are_filled_and_the_same_for_the_same_seed() -> None:
    texts = [[templates.sentence() for _ in range(300)] for templates in (Templates(vocabulary(), random.Random(5), 4) for _ in range(2))]
    assert texts[0] == texts[1]
    assert not [text for text in texts[0] if "{" in text or "|" in text or not text[0].isupper()]
    assert " a apple" not in " ".join(texts[0])


def test_what_is_not_allowed_is_left_out_however_it_is_written() -> None:
    forbidden = {plain("What's the time?")}
    assert allowed(["what's the TIME", "At 7.", "At seven!", "Why?", ""], forbidden) == ["At 7.", "Why?"]


def test_numbers_and_signs_become_words() -> None:
    assert spelled_out("It’s 7:30 & costs $4.50!") == "It's seven thirty and costs four dollars and fifty cents."
    assert spelled_out("a light-roast; two (or 3) cups") == "a light roast, two or three cups"
