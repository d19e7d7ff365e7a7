"""Edges and level of synthetic sounds whose values are known; any split of them gives the same."""

import numpy as np
import pytest

from streaming.audio import Pcm16, Samples
from streaming.mastering import Mastering, Trimmer, limit, measure_gain

RATE = 22_050
WINDOW = 110
LEAD, PROMPT_LEAD = 441, 110
FADE_IN, FADE_OUT = 88, 330


def tone(samples: int, amplitude: float = 0.1) -> Samples:
    return (amplitude * np.sin(np.arange(samples) * (2 * np.pi * 441 / RATE))).astype(np.float32)


def silence(samples: int) -> Samples:
    return np.zeros(samples, np.float32)


PIECE = np.concatenate((silence(2_200), tone(4_400), silence(2_000), tone(3_300, 0.02), silence(3_000)))
"""Two sounds: 2,200 to 6,600 and 8,600 to 11,900."""


def trimmed(sound: Samples, pause: int, split: int, *, prompt: bool = False) -> Samples:
    trimmer = Trimmer(RATE, prompt=prompt)
    kept = [trimmer.push(sound[at : at + split]) for at in range(0, len(sound), split)]
    return np.concatenate((*kept, trimmer.end(pause)))


# ---------------------------------------------------------------------------------------------------------------- edges


def test_silence_at_the_edges_goes_and_silence_inside_stays() -> None:
    kept = trimmed(PIECE, 1_000, len(PIECE))
    # The sound ends with the window 11,880 to 11,990; the pause begins there.
    assert len(kept) == 11_990 - 2_200 + LEAD + 1_000
    assert np.array_equal(kept[:LEAD], silence(LEAD))
    assert np.array_equal(kept[LEAD : LEAD + 9_700], PIECE[2_200:11_900])
    assert not kept[-1_000:].any()


@pytest.mark.parametrize("split", [1, 109, 256, 5_632, 20_000])
@pytest.mark.parametrize("prompt", [False, True])
def test_any_split_is_trimmed_alike(split: int, prompt: bool) -> None:
    piece = np.concatenate((PIECE[:7_000], 0.003 * PIECE[2_500:3_500], PIECE[7_000:]))
    assert np.array_equal(trimmed(piece, 500, split, prompt=prompt), trimmed(piece, 500, len(piece), prompt=prompt))


def test_sound_is_given_as_soon_as_it_is_certain() -> None:
    trimmer = Trimmer(RATE)
    assert len(trimmer.push(silence(22_050))) == 0
    # All but what would be faded if the piece ended here.
    assert len(trimmer.push(tone(2_200))) == LEAD + 2_200 - FADE_OUT + (22_050 - 22_000)
    # Silence waits for what follows.
    assert len(trimmer.push(silence(4_400))) <= FADE_OUT + WINDOW
    assert len(trimmer.push(tone(1_100))) > 4_400


def test_a_soft_onset_belongs_to_the_sound_unless_someone_waits() -> None:
    onset = np.concatenate((silence(2_200), tone(1_100, 0.003), tone(4_400)))
    assert len(trimmed(onset, 0, 999)) == LEAD + 5_500
    assert len(trimmed(onset, 0, 999, prompt=True)) == PROMPT_LEAD + 4_400


def test_where_the_piece_begins_is_known_with_its_first_sound() -> None:
    trimmer = Trimmer(RATE)
    trimmer.push(silence(2_200))
    assert trimmer.start is None
    trimmer.push(tone(500))
    assert trimmer.start == 2_200 - LEAD


def test_both_ends_fade() -> None:
    kept = trimmed(np.ones(5_000, np.float32), 0, 1_000)
    assert len(kept) == 5_000
    assert kept[0] == 0 == kept[-1]
    assert (np.diff(kept[:FADE_IN]) > 0).all()
    assert (kept[FADE_IN:-FADE_OUT] == 1).all()
    assert (np.diff(kept[-FADE_OUT:]) < 0).all()


def test_a_soft_end_is_within_the_pause() -> None:
    soft = np.concatenate((tone(2_200), tone(2_200, 0.001)))
    kept = trimmed(soft, 1_000, 700)
    assert len(kept) == 2_200 + 1_000
    assert np.abs(kept[2_200 : 2_200 + FADE_OUT]).max() > 0
    assert not kept[2_200 + FADE_OUT :].any()


@pytest.mark.parametrize("samples", [0, 1, 1_000])
def test_silence_is_a_pause(samples: int) -> None:
    assert np.array_equal(trimmed(silence(samples), 300, 100), silence(300))


# ---------------------------------------------------------------------------------------------------------------- level


def test_the_gain_brings_sounds_to_the_level_together_and_pauses_do_not_count() -> None:
    def rms(sound: Samples) -> float:
        return float(np.sqrt(np.mean(sound**2)))

    for sound in (tone(22_000, 0.08), tone(22_000, 0.4)):
        gain = measure_gain([sound, silence(22_000)], RATE)
        assert abs(rms(sound * np.float32(gain)) - 0.1) < 1e-3
    both = measure_gain([tone(22_000, 0.1), tone(22_000, 0.2)], RATE)
    assert abs(np.sqrt((rms(tone(22_000, 0.1)) ** 2 + rms(tone(22_000, 0.2)) ** 2) / 2) * both - 0.1) < 1e-3


def test_the_gain_is_bounded() -> None:
    assert measure_gain([tone(22_000, 0.001)], RATE) == 4.0
    assert measure_gain([np.ones(22_000, np.float32)], RATE) == 0.25
    assert measure_gain([silence(500)], RATE) == 1.0
    assert measure_gain([], RATE) == 1.0


def test_peaks_are_bent_and_the_rest_is_not_touched() -> None:
    ramp = np.linspace(-4, 4, 8_001, dtype=np.float32)
    limited = limit(ramp)
    quiet = np.abs(ramp) <= 0.75
    assert np.array_equal(limited[quiet], ramp[quiet])
    assert np.abs(limited).max() <= 0.92
    assert (np.diff(limited) >= 0).all()
    # No corner where the bending begins.
    assert np.diff(limited, 2).max() < 1e-4
    assert np.array_equal(limit(silence(3)), silence(3))
    assert len(limit(silence(0))) == 0


# --------------------------------------------------------------------------------------------------------------- clauses


def mastered(pieces: list[Samples], rate: int, split: int) -> tuple[Pcm16, list[int]]:
    """The clause, and where its pieces end."""
    mastering, pcm, ends = Mastering(RATE, rate, 2.0), [], []
    for piece in pieces:
        pcm += [mastering.push(piece[at : at + split]) for at in range(0, len(piece), split)]
        pcm.append(mastering.end(100))
        ends.append(mastering.ended)
    pcm.append(mastering.flush())
    clause = np.concatenate(pcm)
    assert len(clause) == mastering.given
    return clause, ends


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 48_000])
@pytest.mark.parametrize("split", [256, 5_632])
def test_any_split_of_a_clause_is_mastered_alike(rate: int, split: int) -> None:
    pieces = [PIECE, tone(3_000, 0.5), silence(2_000)]
    whole, ends = mastered(pieces, rate, 100_000)
    cut, same = mastered(pieces, rate, split)
    assert np.abs(whole.astype(np.int32) - cut).max() <= 1
    assert ends == same == sorted(ends)
    assert ends[-1] == len(whole)


def test_positions_follow_the_sound_through_trimming_and_resampling() -> None:
    mastering = Mastering(RATE, 2 * RATE, 1.0)
    assert mastering.position(0) is None
    mastering.push(PIECE)
    start = 2_200 - LEAD
    assert [mastering.position(sample) for sample in (0, start, 2_200, 6_600)] == [0, 0, 2 * LEAD, 2 * (6_600 - start)]
    mastering.end(100)
    assert mastering.ended == 2 * (11_990 - start + 2_205)
    assert mastering.position(0) is None
    mastering.push(PIECE)
    assert mastering.position(2_200) == mastering.ended + 2 * LEAD


def test_odd_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="sample rates are"):
        Mastering(RATE, 100, 1.0)
