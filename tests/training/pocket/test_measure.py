"""What is measured of the projector."""

import json

import torch

from streaming.models.llama import Stretch
from training.pocket.measure import _groups, agreement, word_errors

TABLE = torch.eye(6)


class Reader:
    """A language model that says after each token the next one; of rows it reads the likeliest."""

    def new_cache(self, _: int) -> None:
        return None

    def logits(self, tokens: list[int], start: int, cache: None) -> torch.Tensor:
        return self.all_logits([Stretch(tokens, start, cache)])[-1]

    def all_logits(self, stretches: list[Stretch]) -> torch.Tensor:
        (stretch,) = stretches
        rows = iter([] if stretch.embedded is None else stretch.embedded.argmax(-1).tolist())
        read = [next(rows) if token < 0 else token for token in stretch.tokens]
        return torch.stack([TABLE[(token + 1) % 6] * 9 for token in read])


def test_rows_of_the_text_itself_agree() -> None:
    same = agreement(Reader(), [0], [3], TABLE[[3]], [], ends=[5])
    assert same.first
    assert abs(same.divergence) < 1e-6


def test_rows_of_another_text_do_not() -> None:
    other = agreement(Reader(), [0], [3], TABLE[[1, 2]], [], ends=[5])
    assert not other.first
    assert other.divergence > 1


def test_words_that_are_wrong_are_counted_over_all_clips() -> None:
    errors = word_errors([("A cat", "a cat"), ("the dog ran", "the frog")], str.lower)
    assert (errors.clips, errors.words, errors.wrong, errors.rate) == (2, 4, 2, 0.5)


def test_only_english_clips_of_dev_with_a_text_are_measured(tmp_path) -> None:
    def line(path: str, **changed: object) -> dict[str, object]:
        return {"path": path, "part": "dev", "set": "mfa", "text": "hello", "text_source": "human", "language": "en", **changed}

    (tmp_path / "questions.txt").write_text("q.flac\n")
    others = [line("a", part="train"), line("b", text=None), line("c", language="de"), line("d", text_source="pseudo(whisper-base)")]
    lines = [line("ours"), *others, line("q.flac", set="barista", text_source="pseudo(whisper-base)")]
    found = {name: [one["path"] for one in clips] for name, clips in _groups(tmp_path, json.loads(json.dumps(lines)))}
    assert found["human"] == found["human, mfa"] == ["ours"]
    assert found["questions"] == found["barista"] == ["q.flac"]
