"""Whether an answer does what it was told: the rules of IFEval (Zhou et al. 2023), by its instructions' ids and arguments. Pure.

Sentences are counted by their marks where the original asks a model of NLTK's, so counts of sentences may differ by abbreviations. What
language an answer is in is not judged: such an instruction is left out, and counted.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from server.eval.intervals import wilson
from server.eval.metrics import Score
from server.eval.records import Record

__all__ = ["followed", "instructions_followed"]

_Arguments = Mapping[str, object]


def instructions_followed(records: Sequence[Record]) -> list[Score]:
    """Shares of prompts and of instructions that were followed, strictly, and loosely (without emphasis, or without a first or last line)
    (VoiceBench: ifeval). `fields` have IFEval's `instruction_id_list` and `kwargs`."""
    scores = []
    for name, variants in (("strict", _strict), ("loose", _loose)):
        results = [_results(record, variants(record.response)) for record in records]
        judged = [[one for one in result if one is not None] for result in results]
        every = [one for result in judged for one in result]
        scores += [
            _share(f"{name}, whole prompts", sum(all(result) for result in judged if result), sum(bool(result) for result in judged)),
            _share(f"{name}, instructions", sum(every), len(every)),
        ]
    unjudged = sum(one is None for record in records for one in _results(record, [record.response]))
    return scores if not unjudged else [*scores, Score("instructions not judged", unjudged, len(records), unit="instructions")]


def followed(name: str, arguments: _Arguments, response: str, prompt: str = "") -> bool | None:
    """Whether `response` follows the instruction `name`; None where that can't be judged here."""
    rule = _RULES.get(name)
    if rule is None:
        return None
    return bool(response.strip()) and rule({"prompt": prompt} | {key: value for key, value in arguments.items() if value}, response)


def _results(record: Record, variants: Sequence[str]) -> list[bool | None]:
    names, arguments = record.fields.get("instruction_id_list"), record.fields.get("kwargs")
    if not isinstance(names, list) or not isinstance(arguments, list):
        return []
    results: list[bool | None] = []
    for name, given in zip(names, arguments, strict=False):
        found = [followed(str(name), given if isinstance(given, dict) else {}, variant, record.prompt) for variant in variants]
        results.append(None if None in found else any(found))
    return results


def _strict(response: str) -> list[str]:
    return [response]


def _loose(response: str) -> list[str]:
    lines = response.split("\n")
    bare = [response, *("\n".join(lines[cut]).strip() for cut in (slice(1, None), slice(None, -1), slice(1, -1)))]
    return [*bare, *(variant.replace("*", "") for variant in bare)]


def _share(name: str, count: int, of: int) -> Score:
    rate = wilson(count, of)
    return Score(name, 100 * rate.value, of, 100 * rate.low, 100 * rate.high)


# -------------------------------------------------------------------------------------------------------------- rules


def _number(arguments: _Arguments, key: str, default: int = 1) -> int:
    value = arguments.get(key)
    return int(value) if isinstance(value, int | float) else default


def _text(arguments: _Arguments, key: str) -> str:
    return str(arguments.get(key) or "")


def _texts(arguments: _Arguments, key: str) -> list[str]:
    value = arguments.get(key)
    return [str(one) for one in value] if isinstance(value, list) else []


def _compared(count: int, arguments: _Arguments, key: str, relation: str = "relation") -> bool:
    """`relation` is "less than", else "at least"."""
    wanted = _number(arguments, key)
    return count < wanted if _text(arguments, relation) == "less than" else count >= wanted


def _counted(pattern: str, text: str, flags: int = 0) -> int:
    return len(re.findall(pattern, text, flags))


def _sentences(text: str) -> int:
    return len([one for one in re.split(r"[.!?]+(?:[\"')\]]*)(?:\s+|$)", text) if one.strip()])


def _paragraphs(text: str, mark: str) -> list[str]:
    parts = [part.strip() for part in re.split(mark, text)]
    return parts[(not parts[0]) : len(parts) - (len(parts) > 1 and not parts[-1])]


def _nth_paragraph(arguments: _Arguments, text: str) -> bool:
    parts = [part for part in text.split("\n\n") if part.strip()]
    nth = _number(arguments, "nth_paragraph")
    if len(parts) != _number(arguments, "num_paragraphs") or not 1 <= nth <= len(parts):
        return False
    first = re.split(r"[\s.,?!]", parts[nth - 1].strip().lstrip("\"'"))[0]
    return first.lower() == _text(arguments, "first_word").lower()


def _is_json(_arguments: _Arguments, text: str) -> bool:
    bare = re.sub(r"^```(?:json)?|```$", "", text.strip(), flags=re.IGNORECASE).strip()
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(_arguments: _Arguments, text: str) -> bool:
    parts = [part.strip() for part in _paragraphs(text, r"\*{6}")]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def _constrained(_arguments: _Arguments, text: str) -> bool:
    return any(words in text.strip() for words in ("My answer is yes.", "My answer is no.", "My answer is maybe."))


def _sections(arguments: _Arguments, text: str) -> bool:
    found = _counted(rf"\s?{re.escape(_text(arguments, 'section_spliter'))}\s?\d+\s?", text)
    return found >= _number(arguments, "num_sections")


def _postscript(arguments: _Arguments, text: str) -> bool:
    mark = _text(arguments, "postscript_marker").lower()
    pattern = {"p.p.s": r"\s*p\.\s?p\.\s?s", "p.s.": r"\s*p\.\s?s\."}.get(mark, r"\s*" + re.escape(mark))
    return re.search(pattern, text.lower()) is not None


def _highlights(arguments: _Arguments, text: str) -> bool:
    found = [one.strip("*").strip() for one in [*re.findall(r"\*[^\n*]+\*", text), *re.findall(r"\*\*[^\n*]+\*\*", text)]]
    return sum(bool(one) for one in found) >= _number(arguments, "num_highlights")


def _repeats(arguments: _Arguments, text: str) -> bool:
    return text.strip().lower().startswith(_text(arguments, "prompt_to_repeat").strip().lower())


def _ends(arguments: _Arguments, text: str) -> bool:
    return text.strip().strip('"').lower().endswith(_text(arguments, "end_phrase").strip().lower())


def _letters(arguments: _Arguments, text: str) -> bool:
    return _compared(text.lower().count(_text(arguments, "letter").lower()), arguments, "let_frequency", "let_relation")


def _keyword(word: str) -> str:
    return rf"\b{re.escape(word)}\b"


_RULES: Final[Mapping[str, Callable[[_Arguments, str], bool]]] = {
    "keywords:existence": lambda a, t: all(re.search(re.escape(word), t, re.IGNORECASE) for word in _texts(a, "keywords")),
    "keywords:frequency": lambda a, t: _compared(_counted(re.escape(_text(a, "keyword")), t, re.IGNORECASE), a, "frequency"),
    "keywords:forbidden_words": lambda a, t: not any(re.search(_keyword(word), t, re.IGNORECASE) for word in _texts(a, "forbidden_words")),
    "keywords:letter_frequency": _letters,
    "length_constraints:number_sentences": lambda a, t: _compared(_sentences(t), a, "num_sentences"),
    "length_constraints:number_paragraphs": lambda a, t: (
        all(parts := _paragraphs(t, r"\s?\*\*\*\s?")) and len(parts) == _number(a, "num_paragraphs")
    ),
    "length_constraints:number_words": lambda a, t: _compared(_counted(r"\w+", t), a, "num_words"),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda a, t: _counted(r"\[.*?\]", t) >= _number(a, "num_placeholders"),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda a, t: (
        _counted(r"^\s*\*[^*].*$", t, re.MULTILINE) + _counted(r"^\s*-.*$", t, re.MULTILINE) == _number(a, "num_bullets")
    ),
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _is_json,
    "detectable_format:title": lambda _a, t: any(one.strip() for one in re.findall(r"<<([^\n]+)>>", t)),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeats,
    "startend:end_checker": _ends,
    "startend:quotation": lambda _a, t: len(t.strip()) > 1 and t.strip()[0] == '"' == t.strip()[-1],
    "change_case:capital_word_frequency": lambda a, t: _compared(
        sum(word.isupper() for word in re.findall(r"\w+", t)), a, "capital_frequency", "capital_relation"
    ),
    "change_case:english_capital": lambda _a, t: t.isupper(),
    "change_case:english_lowercase": lambda _a, t: t.islower(),
    "punctuation:no_comma": lambda _a, t: "," not in t,
}
