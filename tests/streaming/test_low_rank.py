"""Changes of an encoder in a file of their own: added to the weights they were made for, refused by name where they are damaged."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from streaming.models.ctranslate2 import WeightsError
from streaming.models.low_rank import STREAMING_ENCODER, Adaptation, fingerprint, merged, read_adaptation, write_adaptation

PLAN = {"first": 16, "block": 16, "lookahead": 16, "silence": 25}


def weights() -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(1)
    return {
        "a.weight": torch.randn(6, 4, generator=chance).half(),
        "a.bias": torch.randn(6, generator=chance).half(),
        "b.weight": torch.randn(4, 6, generator=chance).half(),
    }


def adaptation(**factors: tuple[Tensor, Tensor]) -> Adaptation:
    return Adaptation(fingerprint(weights()), factors or {"a": (torch.ones(2, 4), torch.ones(6, 2))}, PLAN, "a recipe")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_adaptation(tmp_path / "change.safetensors", adaptation())
    return tmp_path / "change.safetensors"


def rewrite(path: Path, tensors: Mapping[str, Tensor] | None = None, **said: str) -> None:
    with safe_open(path, framework="pt") as file:
        before = file.metadata()
    save_file(dict(tensors) if tensors is not None else load_file(path), path, before | said)


def test_what_is_written_is_read(written: Path) -> None:
    found = read_adaptation(written)
    assert (found.base, found.plan, found.recipe) == (fingerprint(weights()), PLAN, "a recipe")
    assert torch.equal(found.factors["a"][0], torch.ones(2, 4, dtype=torch.bfloat16))
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_it_is_added_to_what_it_names_and_to_nothing_else(written: Path) -> None:
    before = weights()
    after = merged(written, read_adaptation(written), before)
    torch.testing.assert_close(after["a.weight"], before["a.weight"].float() + 2)
    assert after["a.bias"] is before["a.bias"]
    assert after["b.weight"] is before["b.weight"]


def test_a_fingerprint_is_of_names_shapes_and_values_whatever_numbers_hold_them() -> None:
    mine = fingerprint(weights())
    assert fingerprint({name: tensor.float() for name, tensor in reversed(weights().items())}) == mine
    assert fingerprint(weights() | {"a.bias": torch.zeros(6)}) != mine
    assert fingerprint(weights() | {"b.weight": weights()["b.weight"].reshape(6, 4)}) != mine
    assert fingerprint(weights() | {"c": torch.zeros(0)}) != mine


@pytest.mark.parametrize(
    ("tensors", "said", "message"),
    [
        ({"a.down": torch.ones(2, 4)}, {}, "a.up is missing"),
        ({"a.down": torch.ones(2, 4), "a.up": torch.ones(6, 2), "a.more": torch.ones(1)}, {}, "a.more is no factor of a layer"),
        ({"a.down": torch.ones(2, 4), "a.up": torch.ones(6, 3)}, {}, r"the factors of a are \(2, 4\) and \(6, 3\), which have no product"),
        ({"a.down": torch.ones(2, 4), "a.up": torch.full((6, 2), torch.nan)}, {}, "the factors of a are not all numbers"),
        ({}, {}, "it changes nothing"),
        (None, {"format": "another"}, "its format is 'another'"),
        (None, {"plan": "{"}, "its plan is not JSON"),
        (None, {"plan": json.dumps(PLAN | {"block": 1.5})}, ".* not whole numbers for first, block, lookahead, silence"),
        (None, {"plan": json.dumps({"block": 16})}, ".* not whole numbers for first, block, lookahead, silence"),
    ],
)
def test_what_is_no_change_is_refused_by_name(
    written: Path, tensors: Mapping[str, Tensor] | None, said: dict[str, str], message: str
) -> None:
    rewrite(written, tensors, **said)
    with pytest.raises(WeightsError, match=rf"change\.safetensors: {message}"):
        read_adaptation(written)


def test_a_file_that_says_nothing_of_its_base_is_refused(written: Path) -> None:
    save_file(load_file(written), written, {"format": "vivavoce low rank 1", "plan": json.dumps(PLAN)})
    with pytest.raises(WeightsError, match="does not say which weights it was made for"):
        read_adaptation(written)


@pytest.mark.parametrize("length", [0, 5, 200])
def test_a_file_that_was_cut_short_is_refused(written: Path, length: int) -> None:
    written.write_bytes(written.read_bytes()[:length])
    with pytest.raises(WeightsError, match=r"change\.safetensors is no safetensors, or is cut short"):
        read_adaptation(written)


def test_a_layer_that_is_not_there_or_has_another_shape_is_named(written: Path) -> None:
    pair = torch.ones(2, 4), torch.ones(6, 2)
    with pytest.raises(WeightsError, match="it changes c, which the encoder does not have"):
        merged(written, adaptation(c=pair), weights())
    with pytest.raises(WeightsError, match=r"it changes b by 6 x 4, which is \(4, 6\)"):
        merged(written, adaptation(b=pair), weights())


def test_a_write_that_fails_leaves_what_was_there(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written.read_bytes()

    def full(tensors: object, path: Path, said: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("streaming.models.low_rank.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_adaptation(written, adaptation())
    assert written.read_bytes() == before
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_the_file_that_comes_with_vivavoce_is_whole_and_small() -> None:
    found = read_adaptation(STREAMING_ENCODER)
    assert len(found.factors) == 6 * 4
    assert sorted(found.plan) == sorted(PLAN)
    assert STREAMING_ENCODER.stat().st_size < 8 << 20
