"""Choices: greedy, drawn in proportion, cut off, penalised, and the same again from the same seed."""

from collections import Counter

import pytest
import torch

from streaming.sampling import Sampler, Sampling

# Probabilities 0.5, 0.3, 0.15 and 0.05 at temperature 1.
LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
PLAIN = Sampling(temperature=1, top_p=1, repetition_penalty=1)


def _draws(sampling: Sampling, said: tuple[int, ...] = (), count: int = 2_000) -> Counter[int]:
    sampler = Sampler(3)
    return Counter(sampler.choose(LOGITS, said, sampling) for _ in range(count))


def test_temperature_zero_takes_the_best_and_leaves_the_generator_alone() -> None:
    sampler, other = Sampler(9), Sampler(9)
    greedy = Sampling(temperature=0, repetition_penalty=1)
    assert [sampler.choose(LOGITS, (), greedy) for _ in range(5)] == [0] * 5
    assert sampler.choose(LOGITS, (), PLAIN) == other.choose(LOGITS, (), PLAIN)


def test_draws_are_in_proportion() -> None:
    drawn = _draws(PLAIN)
    for token, probability in enumerate((0.5, 0.3, 0.15, 0.05)):
        assert drawn[token] / 2_000 == pytest.approx(probability, abs=0.03)


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    assert set(_draws(Sampling(temperature=1, top_p=0.49, repetition_penalty=1))) == {0}
    assert set(_draws(Sampling(temperature=1, top_p=0.79, repetition_penalty=1))) == {0, 1}
    assert set(_draws(Sampling(temperature=1, top_p=0.81, repetition_penalty=1))) == {0, 1, 2}


def test_min_p_is_a_fraction_of_the_best() -> None:
    assert set(_draws(Sampling(temperature=1, top_p=1, min_p=0.29, repetition_penalty=1))) == {0, 1, 2}
    assert set(_draws(Sampling(temperature=1, top_p=1, min_p=1, repetition_penalty=1))) == {0}


def test_what_was_said_is_less_likely() -> None:
    assert Sampler(0).choose(torch.tensor([2.0, 1.9, -1.0]), (), Sampling(temperature=0, repetition_penalty=1.1)) == 0
    assert Sampler(0).choose(torch.tensor([2.0, 1.9, -1.0]), (0, 0), Sampling(temperature=0, repetition_penalty=1.1)) == 1
    assert Sampler(0).choose(torch.tensor([-2.0, -2.1]), (0,), Sampling(temperature=0, repetition_penalty=1.1)) == 1


@pytest.mark.parametrize("vocabulary", [3, 65, 130, 5_000])
def test_all_of_a_vocabulary_is_looked_at(vocabulary: int) -> None:
    # The likeliest tokens stand beside each other, and at the end.
    logits = torch.full((vocabulary,), -20.0)
    logits[-3:] = 0.0
    sampler = Sampler(2)
    drawn = {sampler.choose(logits, (), Sampling(temperature=1, top_p=0.99)) for _ in range(100)}
    assert drawn == {vocabulary - 3, vocabulary - 2, vocabulary - 1}


def test_logits_are_not_changed() -> None:
    logits = LOGITS.clone()
    Sampler(0).choose(logits, (0, 1), Sampling())
    assert torch.equal(logits, LOGITS)


def test_a_seed_is_a_session() -> None:
    def tokens(seed: int) -> list[int]:
        sampler = Sampler(seed)
        return [sampler.choose(LOGITS, (), PLAIN) for _ in range(50)]

    assert tokens(-12345678901234567890) == tokens(-12345678901234567890)
    assert tokens(1) != tokens(2)


def test_tokens_at_minus_infinity_are_never_chosen() -> None:
    logits = torch.full((200,), -torch.inf)
    logits[[17, 90]] = 0.0
    sampler = Sampler(4)
    assert {sampler.choose(logits, (17,), Sampling(temperature=2, top_p=1)) for _ in range(100)} == {17, 90}


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_logits_that_are_no_numbers_are_an_error(temperature: float) -> None:
    for bad in (torch.full((5,), torch.nan), torch.full((5,), -torch.inf)):
        with pytest.raises(ValueError, match="not finite"):
            Sampler(0).choose(bad, (), Sampling(temperature=temperature))


@pytest.mark.parametrize(
    "setting", [{"temperature": -0.1}, {"temperature": 2.1}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": -0.1}, {"repetition_penalty": 0.9}]
)
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        Sampling(**setting)
