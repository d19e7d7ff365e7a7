"""A projector's file says which models it stands between, and is refused beside others."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from streaming.absent import AbsentLanguageModel
from streaming.audio_path import AudioPath
from streaming.decoder import LlamaLanguageModel
from streaming.engine import Parts
from streaming.hearing_models import load_frame_rows
from streaming.models.ctranslate2 import WeightsError
from streaming.models.fit import fit_tensors, misfit
from streaming.models.pocket_projector import PocketProjector
from streaming.recogniser import Recogniser


@pytest.fixture
def model(projecting_parts: Parts) -> LlamaLanguageModel:
    model = projecting_parts.writer.model
    assert isinstance(model, LlamaLanguageModel)
    return model


@pytest.fixture
def file(tmp_path: Path, tiny_recogniser: Recogniser, model: LlamaLanguageModel, projecting_parts: Parts) -> Path:
    """The projector of these models as `training` writes one."""
    path = projecting_parts.writer.template.path
    assert isinstance(path, AudioPath)
    projector = path.encoder._projector
    assert isinstance(projector, PocketProjector)
    pieces = projector.pieces
    tensors = {f"network.{name}": tensor.contiguous() for name, tensor in projector.network.state_dict().items()}
    tensors |= {f"pieces.{name}": getattr(pieces, name).clone() for name in ("tokens", "first", "behind_stop", "stops")}
    tensors["pieces.sounds"] = pieces.places[:, projector.network.shape.embedding_width :].clone()
    tensors |= fit_tensors(tiny_recogniser.model.encoder, model.embedding)
    shape = json.dumps(asdict(projector.network.shape))
    save_file(tensors, tmp_path / "p.safetensors", {"shape": shape, "encoder": "Whisper tiny", "language_model": "LM tiny"})
    return tmp_path / "p.safetensors"


def rewritten(file: Path, **changed: torch.Tensor | None) -> Path:
    tensors = {name: tensor for name, tensor in (load_file(file) | changed).items() if tensor is not None}
    with safe_open(file, framework="pt") as opened:
        save_file(tensors, file, opened.metadata())
    return file


def test_the_same_models_in_fewer_bits_fit_and_others_of_the_same_sizes_do_not(
    tiny_recogniser: Recogniser, model: LlamaLanguageModel
) -> None:
    encoder, embedding = tiny_recogniser.model.encoder, model.embedding
    kept = fit_tensors(encoder, embedding)
    scale = embedding.abs().amax(1, keepdim=True) / 7
    assert misfit(kept, encoder, (embedding / scale).round() * scale) is None
    assert misfit(kept, encoder, torch.randn_like(embedding)) == "language model"
    assert misfit(kept, encoder, embedding[:, :16]) == "language model"
    assert misfit(kept | {"fit.encoder": torch.randn_like(kept["fit.encoder"])}, encoder, embedding) == "encoder"


def test_a_projector_beside_its_models_is_loaded(file: Path, tiny_recogniser: Recogniser, model: LlamaLanguageModel) -> None:
    assert load_frame_rows(file, tiny_recogniser, model).width == 32


@pytest.mark.parametrize(("name", "meant"), [("fit.encoder", "the encoder Whisper tiny"), ("fit.embedding", "the language model LM tiny")])
def test_beside_another_it_is_refused_by_name(
    file: Path, tiny_recogniser: Recogniser, model: LlamaLanguageModel, name: str, meant: str
) -> None:
    rewritten(file, **{name: torch.randn(load_file(file)[name].shape)})
    with pytest.raises(
        WeightsError, match=rf"p\.safetensors is for {meant}, and the bundle has another: take the part .* put that one there"
    ):
        load_frame_rows(file, tiny_recogniser, model)


def test_one_that_does_not_say_what_it_is_for_and_models_it_cannot_be_for_are_refused(
    file: Path, tiny_recogniser: Recogniser, model: LlamaLanguageModel
) -> None:
    with pytest.raises(WeightsError, match="there is none"):
        load_frame_rows(file, tiny_recogniser, AbsentLanguageModel())
    with pytest.raises(WeightsError, match="another kind of model"):
        load_frame_rows(file, object(), model)  # type: ignore[arg-type]
    rewritten(file, **{"fit.encoder": None})
    with pytest.raises(WeightsError, match=r"does not say which models it is for: it has no 'fit\.encoder'"):
        load_frame_rows(file, tiny_recogniser, model)
