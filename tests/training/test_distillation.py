from pathlib import Path

import numpy as np
import pytest
import torch

from streaming.encoder import AFTER, BEFORE
from streaming.models.low_rank import Adaptation, merged
from streaming.models.whisper import Whisper, WhisperShape
from training.block_mask import Block
from training.distillation import Distillation, LossWeights, adapted

SMALL = [Block(4, 2)] * 5 + [Block(5, 0)]
WHOLE = [Block(25, 0)]


@pytest.fixture
def model() -> Whisper:
    torch.manual_seed(3)
    whisper = Whisper(WhisperShape(80, 16, 2, encoder_layers=2, decoder_layers=1, vocabulary=8, audio_positions=60, text_positions=8))
    for weight in whisper.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return whisper.requires_grad_(False)


def mel() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(4).standard_normal((BEFORE + 50 + AFTER, 80)).astype(np.float32))


def test_what_has_learned_nothing_is_the_teacher_where_it_sees_everything(model: Whisper) -> None:
    student, _ = adapted(model.encoder, rank=2, seed=1)
    distillation = Distillation(model, student, thin=4, weights=LossWeights(1.0, 1.0))
    distillation.refresh()
    assert distillation.loss(mel(), WHOLE) < 1e-9 < distillation.loss(mel(), SMALL)
    assert distillation.silence_loss() < 1e-9


def test_it_learns_factors_and_nothing_else_and_what_it_learned_is_what_is_added(model: Whisper) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    student, layers = adapted(model.encoder, rank=2, seed=1)
    distillation = Distillation(model, student, thin=4, weights=LossWeights(1.0, 1.0))
    optimiser = torch.optim.AdamW([factor for layer in layers.values() for factor in (layer.down, layer.up)], 0.02)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        losses.append(distillation.loss(mel(), SMALL))
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    factors = {name: (layer.down.detach(), layer.up.detach()) for name, layer in layers.items()}
    state = merged(Path(__file__), Adaptation("", factors, {}, ""), model.encoder.state_dict())
    for name, layer in layers.items():
        rows = torch.randn(3, layer.weight.shape[1], generator=torch.Generator().manual_seed(5))
        torch.testing.assert_close(rows @ state[f"{name}.weight"].T + layer.bias, layer(rows).detach(), atol=1e-5, rtol=1e-4)
