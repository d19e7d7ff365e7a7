from collections import Counter

from benchmarks.encoders import measure, noise


def test_it_compares_every_encoder_and_what_is_exact_is() -> None:
    rows = measure([], [noise(64_000)], None)
    assert Counter(row.part for row in rows) == {"exact": 9, "windows": 24}
    for row in rows[:8]:
        assert all(float(figure) <= 1e-4 for figure in row.result.replace(",", "").split()[1::2])
    assert rows[8].result == "0 of 800 codes differ"
