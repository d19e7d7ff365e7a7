import numpy as np
import pytest
import torch

from streaming.batching import completed
from streaming.encoder import BEFORE, BlockPlan, EncoderStation, EncoderStream, hear_silence
from streaming.features import SILENCE, LogMel
from streaming.models.whisper import Silence, WhisperEncoder, WhisperShape
from training.block_mask import Block, masked_frames, planned, view_of

PLANS = [
    BlockPlan(first=8, block=8, lookahead=0, silence=5),
    BlockPlan(first=16, block=16, lookahead=16, silence=25),
    BlockPlan(first=30, block=12, lookahead=20, silence=5),
    BlockPlan(first=400, block=12, lookahead=8, silence=5),
]


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    torch.manual_seed(3)
    shape = WhisperShape(80, 32, 4, encoder_layers=3, decoder_layers=1, vocabulary=8, audio_positions=500, text_positions=8)
    model = WhisperEncoder(shape)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return model.requires_grad_(False)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("every", [1, 8])
@pytest.mark.parametrize("samples", [0, 3_333, 40_000, 100_000])
def test_one_masked_run_is_what_the_stream_gives_block_by_block(encoder: WhisperEncoder, plan: BlockPlan, every: int, samples: int) -> None:
    silence = Silence(hear_silence(encoder)[0], every)
    pcm = (np.random.default_rng(5).standard_normal(samples) * 0.1).astype(np.float32)
    features = LogMel()
    pushed = features.push(pcm)
    tail = features.tail()
    stream = EncoderStream(EncoderStation(encoder, silence), plan)
    stream.push(pushed)
    expected = []
    while (frames := completed(stream.commit())) is not None:
        expected.append(frames)
    expected.append(completed(stream.provisional(tail)))

    blocks = planned(plan, len(pushed), len(tail))
    assert [block.frames for block in blocks] == [len(frames) for frames in expected]
    count = sum(block.frames for block in blocks)
    mel = torch.full((BEFORE + 2 * count + 1, 80), SILENCE)
    mel[:BEFORE] = 0
    heard = np.concatenate((pushed, tail))
    mel[BEFORE : BEFORE + len(heard)] = torch.from_numpy(heard)
    view = view_of(blocks, encoder.shape.audio_positions, every, torch.zeros(0))
    got = masked_frames(encoder, encoder.stem(mel, 0), view, silence)
    torch.testing.assert_close(got, torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_a_row_sees_what_was_committed_its_own_block_and_lookahead_and_silence_behind() -> None:
    view = view_of([Block(2, 1), Block(1, 0)], positions=6, every=2, like=torch.zeros(0))
    assert view.positions.tolist() == [0, 1, 2, 2]
    assert view.kept.tolist() == [0, 1, 3]
    (stretch,) = view.stretches
    # Silence stands at 0, 2 and 4, of which nobody sees the first two; then the rows.
    assert stretch.seen.tolist() == [2, 3, 4, 5, 6]
    seen = torch.isfinite(stretch.bias).int().tolist()
    assert seen == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 0, 1]]
