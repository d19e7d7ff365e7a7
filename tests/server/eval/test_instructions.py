"""IFEval's rules, each with an answer that follows it and one that does not."""

import pytest

from server.eval.instructions import followed, instructions_followed
from server.eval.records import Record


@pytest.mark.parametrize(
    ("name", "arguments", "good", "bad"),
    [
        ("keywords:existence", {"keywords": ["apple", "Pear"]}, "An Apple and a pear.", "An apple."),
        ("keywords:frequency", {"keyword": "sun", "frequency": 2, "relation": "at least"}, "Sun and sun.", "Sun."),
        ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "A catalogue.", "A cat."),
        ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": "less than"}, "zero", "zzz"),
        ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "One."),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n***\nTwo", "One"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "Two words", "Now three words"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
            "First.\n\nThen, more.",
            "First.\n\nMore.",
        ),
        ("detectable_content:number_placeholders", {"num_placeholders": 1}, "Dear [name],", "Dear you,"),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. Write.", "Bye."),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- two", "* one"),
        ("detectable_format:constrained_response", {}, "My answer is yes.", "Yes."),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "a *bold* word", "a word"),
        ("detectable_format:multiple_sections", {"section_spliter": "Part", "num_sections": 2}, "Part 1 a\nPart 2 b", "Part 1 a"),
        ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
        ("detectable_format:title", {}, "<<A title>>\nText", "A title"),
        ("combination:two_responses", {}, "One\n******\nTwo", "One\n******\nOne"),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "say hi. Hi!", "Hi!"),
        ("startend:end_checker", {"end_phrase": "The end."}, "Well. The end.", "The end. Well."),
        ("startend:quotation", {}, '"All of it"', '"Some" of it'),
        ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "at least"}, "A BIG one", "small"),
        ("change_case:english_capital", {}, "ALL OF IT", "Some"),
        ("change_case:english_lowercase", {}, "all of it", "Some"),
        ("punctuation:no_comma", {}, "No comma.", "A comma, here."),
    ],
)
def test_rules(name: str, arguments: dict[str, object], good: str, bad: str) -> None:
    assert followed(name, arguments, good) is True
    assert followed(name, arguments, bad) is False
    assert followed(name, arguments, "  ") is False


def test_shares_strict_and_loose() -> None:
    fields = {"instruction_id_list": ["change_case:english_lowercase", "punctuation:no_comma"], "kwargs": [{}, {"num_words": None}]}
    good = Record("1", "p", "", "all of it", fields=fields)
    loose = Record("2", "p", "", "Here it is:\nall of it", fields=fields)
    scores = {score.name: score.value for score in instructions_followed([good, loose])}
    assert scores == {"strict, whole prompts": 50, "strict, instructions": 75, "loose, whole prompts": 100, "loose, instructions": 100}


def test_a_language_is_not_judged() -> None:
    fields = {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "fr"}]}
    scores = {score.name: score.value for score in instructions_followed([Record("1", "p", "", "Bonjour", fields=fields)])}
    assert scores["instructions not judged"] == 1
