"""Our projector on tiny random weights: any split of the frames gives the rows of the whole, and training sees what a stream sees."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from streaming.models.ctranslate2 import WeightsError
from streaming.models.pocket_projector import BLANK, BLOCK, Pieces, PocketProjector, ProjectorNetwork, ProjectorShape, load_projector

SHAPE = ProjectorShape(frame_width=6, stack=4, width=8, inner=12, layers=2, heads=2, window=5, ahead=2, embedding_width=10, sound_width=3)
VOCABULARY = 20


def pieces_tensors(count: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "pieces.tokens": torch.arange(count, dtype=torch.int32),
        "pieces.first": torch.arange(count, dtype=torch.int32) + count,
        "pieces.behind_stop": torch.arange(count, dtype=torch.int32) + 12,
        "pieces.stops": torch.tensor([False] * (count - 1) + [True]),
        "pieces.sounds": torch.randn(count, 3, generator=generator),
    }


def network_of(shape: ProjectorShape = SHAPE) -> ProjectorNetwork:
    torch.manual_seed(0)
    network = ProjectorNetwork(shape)
    with torch.no_grad():
        for layer in network.layers:
            layer.distances.normal_()
        # Scores far enough apart that every split finds the same likeliest piece, and changes of it often enough.
        network.out.weight.mul_(6)
    return network


def write(path, shape: ProjectorShape = SHAPE, **changed: torch.Tensor) -> None:
    tensors = {f"network.{name}": tensor.contiguous() for name, tensor in network_of(shape).state_dict().items()}
    save_file({**tensors, **pieces_tensors(), **changed}, path, {"shape": json.dumps({k: getattr(shape, k) for k in shape.__slots__})})


@pytest.fixture(scope="module")
def embedding() -> torch.Tensor:
    return torch.randn(VOCABULARY, SHAPE.embedding_width, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def projector(tmp_path, embedding) -> PocketProjector:
    write(tmp_path / "projector.safetensors")
    return load_projector(tmp_path / "projector.safetensors", embedding)


def frames_of(count: int) -> torch.Tensor:
    return torch.randn(count, SHAPE.frame_width, generator=torch.Generator().manual_seed(3))


def whole(projector: PocketProjector, frames: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    stream = projector.stream()
    return stream.provisional(frames), stream.tail_tokens


@pytest.mark.parametrize("sizes", [(200,), (1,), (16,), (7, 23, 1), (96, 64)])
def test_any_split_of_the_frames_gives_the_rows_of_the_whole(projector, sizes) -> None:
    frames = frames_of(203)
    rows, tokens = whole(projector, frames)
    assert len(rows) == len(tokens) > 8
    stream, committed, start = projector.stream(), [], 0
    while start < 200:
        size = sizes[start % len(sizes)]
        committed.append(stream.commit(frames[start : min(200, start + size)]))
        start += size
    tail = stream.provisional(frames[200:])
    assert torch.allclose(torch.cat((*committed, tail)), rows, atol=1e-4)
    assert [*stream.tokens, *stream.tail_tokens] == tokens


def test_splits_commit_the_same_rows_bit_for_bit(projector) -> None:
    frames = frames_of(160)
    streams = [projector.stream(), projector.stream()]
    at_once = streams[0].commit(frames)
    one_by_one = torch.cat([streams[1].commit(frame[None]) for frame in frames])
    assert len(at_once) > 5
    assert torch.equal(at_once, one_by_one)


def test_what_is_provisional_changes_nothing(projector) -> None:
    frames = frames_of(160)
    disturbed, alone = projector.stream(), projector.stream()
    for start in range(0, 160, 20):
        found = disturbed.commit(frames[start : start + 20])
        disturbed.provisional(frames_of(50))
        assert torch.equal(found, alone.commit(frames[start : start + 20]))
    assert disturbed.tokens == alone.tokens


def test_a_piece_is_committed_when_it_has_ended(projector) -> None:
    stream = projector.stream()
    assert len(stream.commit(frames_of(SHAPE.stack * BLOCK))) == 0  # its right context has not come
    assert stream.tokens == []


def test_nothing_heard_gives_no_rows(projector) -> None:
    rows = projector.stream().provisional(torch.zeros(0, SHAPE.frame_width))
    assert rows.shape == (0, SHAPE.embedding_width)


def test_training_sees_what_a_stream_sees(projector) -> None:
    frames = frames_of(90)
    padded = functional.pad(frames, (0, 0, 0, 30))[None]
    points, blanks = projector.network.points(projector.network(padded)[-1])
    columns = projector.pieces.scores(points[0], blanks[0]).argmax(-1)[: -(-90 // SHAPE.stack)].tolist()
    heard = [column for column, before in zip(columns, [BLANK, *columns], strict=False) if column not in (BLANK, before)]
    _, tokens = whole(projector, frames)
    assert len(tokens) == len(heard)
    assert tokens[0] == heard[0] - 1 + 7  # at the beginning, the piece with a capital
    stop = 7
    assert [token for token, behind in zip(tokens[1:], heard, strict=False) if behind == stop] == [
        piece - 1 + 12 for piece, behind in zip(heard[1:], heard, strict=False) if behind == stop
    ]


def test_a_row_of_one_likely_piece_is_its_embedding(embedding) -> None:
    tables = pieces_tensors()
    tokens, first, behind = (tables[f"pieces.{name}"].long() for name in ("tokens", "first", "behind_stop"))
    pieces = Pieces(tokens, first, behind, tables["pieces.stops"], functional.pad(embedding[:7], (0, 3)))
    network = network_of()
    with torch.no_grad():
        network.out.weight.zero_()
        network.out.bias.copy_(functional.pad(embedding[3] * 50, (0, 3)))
        network.blank.weight.zero_()
        network.blank.bias.fill_(-100)
    projector = PocketProjector(network, pieces, embedding)
    rows, tokens = whole(projector, frames_of(40))
    assert tokens == [3 + 7]
    assert torch.allclose(rows[0], embedding[3 + 7], atol=1e-4)


def test_rows_have_the_type_of_the_table(tmp_path, embedding) -> None:
    write(tmp_path / "projector.safetensors")
    projector = load_projector(tmp_path / "projector.safetensors", embedding.bfloat16())
    rows, _ = whole(projector, frames_of(100))
    assert rows.dtype == torch.bfloat16


def test_files_that_are_no_projector_are_refused_by_name(tmp_path, embedding) -> None:
    path = tmp_path / "projector.safetensors"
    write(path)
    with pytest.raises(WeightsError, match=r"projector\.safetensors.*rows of 10, the language model has rows of 12"):
        load_projector(path, torch.zeros(VOCABULARY, 12))
    with pytest.raises(WeightsError, match="a vocabulary of 15 tokens does not have"):
        load_projector(path, torch.zeros(15, 10))
    write(path, **{"pieces.sounds": torch.zeros(3, 3)})
    with pytest.raises(WeightsError, match="differ in length"):
        load_projector(path, embedding)
    write(path, **{"network.blank.bias": torch.zeros(2)})
    with pytest.raises(WeightsError, match="no projector of ours"):
        load_projector(path, embedding)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="cut short"):
        load_projector(path, embedding)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="no projector of ours"):
        load_projector(path, embedding)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="heads divide the width"):
        ProjectorShape(width=10, heads=3)
