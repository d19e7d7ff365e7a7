"""Kokoro's door with a graph that is a stand-in: what is spelt, where symbols end, what is too long, and folders that are not Kokoro's.
What the real one says, `test_tts` hears."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from streaming.models.kokoro import KokoroModel, voices_in

LETTERS = " .,AWIɡhəlodɹɜʧˈ"


class Graph:
    """Every token lasts as many frames as its number; the sound of an utterance is its own number."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], float, float]] = []

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in ("tokens", "style", "speed")]

    def run(self, _: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        tokens = given["tokens"][0]
        self.asked.append((tokens.tolist(), float(given["style"][0, 0]), float(given["speed"][0])))
        frames = np.maximum(tokens, 2).astype(np.float32)
        return [np.full((1, int(frames.sum()) * 600), len(self.asked), np.float32), frames[None]]


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture
def model(graph: Graph) -> KokoroModel:
    ids = {letter: number for number, letter in enumerate(LETTERS, 1)}
    rows = np.arange(510, dtype=np.float32)[:, None] * np.ones((1, 256), np.float32)
    return KokoroModel(graph, ids, {"af_heart": rows, "am_echo": rows + 1_000})


def test_two_letters_of_a_diphthong_are_one_token_and_end_where_it_does(model: KokoroModel, graph: Graph) -> None:
    said = model.stream(list("həlˈaɪ gaʊ."), 2.0)
    ((tokens, style, speed),) = graph.asked
    assert "".join(LETTERS[token - 1] for token in tokens[1:-1]) == "həlˈI ɡW."
    assert tokens[0] == tokens[-1] == 0
    assert style == len(tokens) - 2  # the row of so many tokens
    assert speed == 0.5
    assert said.samples == sum(len(part) for part in said.stretches)
    assert (np.diff(said.ends) >= 0).all()
    assert said.ends[-1] == said.samples - 2 * 600  # but for the token that ends it


def test_symbols_without_a_token_are_left_out_and_counted(model: KokoroModel) -> None:
    said = model.stream(list("hx"), 1.0)
    assert said.dropped == 1
    assert said.ends[0] == said.ends[1]
    assert model.stream(list("x"), 1.0).ends.tolist() == [2 * 600]
    assert model.stream(list("hː"), 1.0).dropped == 0


@pytest.mark.parametrize(
    ("name", "meant"), [("", "af_heart"), ("am_echo", "am_echo"), ("echo", "am_echo"), ("Echo", "am_echo"), ("joe", "af_heart")]
)
def test_a_voice_is_known_by_its_name_with_its_kind_and_without(model: KokoroModel, graph: Graph, name: str, meant: str) -> None:
    assert model.voice_named(name) == meant
    model.stream(["h"], 1.0, None, name)
    assert graph.asked[0][1] == (1.0 if meant == "af_heart" else 1_001.0)


def test_what_is_longer_than_the_model_takes_is_cut_between_words(model: KokoroModel, graph: Graph) -> None:
    word = "hlhlhlh "
    said = model.stream(list(word * 150), 1.0)
    assert [len(tokens) - 2 for tokens, *_ in graph.asked] == [504, 504, 192]
    assert sum(len(tokens) - 2 for tokens, *_ in graph.asked) == 8 * 150
    parts = list(said.stretches)
    assert [part[0] for part in parts] == [1.0, 2.0, 3.0]
    assert said.samples == sum(len(part) for part in parts)
    assert len(said.ends) == 8 * 150
    assert (np.diff(said.ends) > 0).all()
    assert said.ends[503] == len(parts[0]) - 2 * 600
    assert model.stream(["h"] * 1_200, 1.0).samples  # one word, cut where it must be


def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.json").write_text(json.dumps({"vocab": {"h": 1}}))
    (tmp_path / "model.onnx").write_bytes(b"\x3a\x00")
    np.zeros((510, 1, 256), np.float32).tofile(tmp_path / "am_echo.bin")
    np.zeros((510, 1, 256), np.float32).tofile(tmp_path / "af_heart.bin")
    return tmp_path


def test_voices_are_the_files_the_usual_one_first(tmp_path: Path) -> None:
    assert voices_in(folder(tmp_path)) == ("af_heart", "am_echo")
    (tmp_path / "vocab.json").unlink()
    assert voices_in(tmp_path) == ()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda at: (at / "model.onnx").unlink(), "expected one .onnx"),
        (lambda at: (at / "vocab.json").write_text("[1]"), r"vocab\.json is not the vocabulary of a Kokoro"),
        (lambda at: [path.unlink() for path in at.glob("*.bin")], "has no voice: put one there as NAME.bin"),
        (lambda at: at, r"model\.onnx is no Kokoro"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, damage, said: str) -> None:
    at = folder(tmp_path)
    damage(at)
    with pytest.raises((OSError, ValueError), match=said):
        KokoroModel.load(at, 1)


@pytest.mark.models
def test_a_voice_of_another_size_is_named(tmp_path: Path, kokoro: Path) -> None:
    for name in ("model.onnx", "vocab.json"):
        (tmp_path / name).symlink_to(kokoro / name)
    (tmp_path / "af_heart.bin").write_bytes(b"\0" * 400)
    with pytest.raises(ValueError, match=r"af_heart\.bin has 100 numbers, a voice has 130560"):
        KokoroModel.load(tmp_path, 1)
