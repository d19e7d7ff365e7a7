"""Training on tiny random numbers: it learns, stops and goes on as if it had not, and refuses what it can't go on from."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from streaming.models.pocket_projector import ProjectorShape, load_projector
from training.pocket import fit as fitting
from training.pocket.export import export
from training.pocket.fit import Example, FitError, fit
from training.pocket.frames import Heard
from training.pocket.learner import Learner, batch_of
from training.pocket.pieces import PieceTable

SHAPE = ProjectorShape(frame_width=6, stack=2, width=16, inner=16, layers=2, heads=2, window=8, ahead=1, embedding_width=10, sound_width=4)
PIECES = 9
SETTINGS = {
    "seconds": 4,
    "epochs": 2,
    "learning_rate": 0.01,
    "warm_up": 2,
    "weight_decay": 0.0,
    "phonemes": 0.3,
    "hidden": 0.1,
    "stretches": 1,
    "slower": [0.9, 1.1],
    "noise": 0.1,
}


def learner() -> Learner:
    torch.manual_seed(0)
    embedding = torch.randn(PIECES, 10)
    phonemes = torch.arange(PIECES * 3).view(PIECES, 3) % 7 + 1
    return Learner(SHAPE, embedding, phonemes, others=4, dropout=0.1)


def examples(count: int = 8, **changed: object) -> list[Example]:
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((PIECES, 6))
    found = []
    for _ in range(count):
        pieces = rng.permutation(PIECES)[:3].tolist()
        frames = np.concatenate([np.repeat(patterns[[piece]], 8, 0) for piece in pieces] + [np.zeros((4, 6))]).astype(np.float16)
        found.append(Example(Heard(frames, "", "people", "p"), pieces, [piece % 7 + 1 for piece in pieces]))
    return [dataclasses.replace(one, **changed) for one in found] if changed else found


def run(
    path: Path, settings: dict[str, object] | None = None, recipe: str = "r", chosen: list[Example] | None = None
) -> tuple[Learner, list[str]]:
    said: list[str] = []
    model = learner()
    fit(model, examples() if chosen is None else chosen, {**SETTINGS, **(settings or {})}, 1, path, recipe, say=said.append)
    return model, said


def test_it_learns_what_is_in_the_sound(tmp_path) -> None:
    model, said = run(tmp_path / "c.pt", {"epochs": 60})
    first, last = (float(line.split("pieces ")[1].split()[0]) for line in (said[0], said[-1]))
    assert last < first / 2
    model.eval()
    assert model.places().shape == (PIECES, 14)


def test_a_run_that_was_stopped_goes_on_as_it_would_have(tmp_path, monkeypatch) -> None:
    whole, _ = run(tmp_path / "whole.pt")
    monkeypatch.setattr(fitting, "_SAVED", 0.0)
    steps = fitting._step

    def stopping(*arguments: object) -> tuple[float, float]:
        if arguments[4] == 1 + 3:  # the seed of the fourth step
            raise KeyboardInterrupt
        return steps(*arguments)

    monkeypatch.setattr(fitting, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped.pt")
    monkeypatch.setattr(fitting, "_step", steps)
    again, said = run(tmp_path / "stopped.pt")
    assert said[0].startswith("going on from step 3 of")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_checkpoint_of_other_settings_is_refused(tmp_path) -> None:
    run(tmp_path / "c.pt")
    with pytest.raises(FitError, match=r"c\.pt is of other settings or other data \(r, not other\)"):
        run(tmp_path / "c.pt", recipe="other")


def test_a_damaged_checkpoint_is_refused(tmp_path) -> None:
    (tmp_path / "c.pt").write_bytes(b"half")
    with pytest.raises(FitError, match=r"c\.pt is no checkpoint of ours"):
        run(tmp_path / "c.pt")


def test_a_loss_that_is_no_number_stops_it(tmp_path) -> None:
    bad = examples()
    bad[0].heard.frames[:] = np.nan
    with pytest.raises(FitError, match="not a number"):
        run(tmp_path / "c.pt", chosen=bad)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch) -> None:
    def full(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FitError, match=r"c\.pt can't be written"):
        run(tmp_path / "c.pt")
    assert not list(tmp_path.iterdir())


def test_clips_with_nothing_said_teach_silence(tmp_path) -> None:
    run(tmp_path / "c.pt", chosen=[*examples(2), *examples(2, pieces=[], phonemes=[])])


def test_scores_of_some_pieces_stand_for_all(tmp_path) -> None:
    model = learner().eval()
    batch = batch_of([(torch.randn(20, 6), [1, 2], [1, 2, 3])], SHAPE.stack)
    losses = []
    for others in (0, PIECES):
        model._others = others
        losses.append(float(model(batch, torch.Generator().manual_seed(1))[0].detach()))
    assert losses[0] < losses[1]  # fewer to be taken for


def test_what_is_written_is_what_was_learned(tmp_path) -> None:
    model, _ = run(tmp_path / "c.pt")
    model.eval()
    numbers = tuple(range(PIECES))
    table = PieceTable(numbers, numbers, numbers, (False,) * PIECES, ("x",) * PIECES)
    path = tmp_path / "deep" / "projector.safetensors"
    with torch.no_grad():
        places = model.places()
        digest = export(path, model.network, places[:, 10:], table, {"encoder": "tiny"}, {"fit.encoder": torch.ones(2)})
    assert len(digest) == 64
    assert [one.name for one in path.parent.iterdir()] == ["projector.safetensors"]
    projector = load_projector(path, torch.cat((model._embedding, torch.zeros(3, 10))))
    assert torch.allclose(projector.pieces.places, places, atol=1e-2)
    frames = torch.randn(1, 40, 6)
    with torch.no_grad():
        assert torch.allclose(projector.network(frames)[-1], model.network(frames)[-1], atol=2e-2)


def test_numbers_that_are_none_are_not_written(tmp_path) -> None:
    model = learner()
    table = PieceTable((0,), (0,), (0,), (False,), ("x",))
    with pytest.raises(ValueError, match=r"pieces\.sounds has numbers that are none"):
        export(tmp_path / "p.safetensors", model.network, torch.full((1, 4), torch.nan), table, {}, {})
    assert not list(tmp_path.iterdir())
