"""Differences in words: an interval only where something is left to chance, and no signed zeros."""

from app.report.cluster_compare import difference_words
from app.report.plan_words import implied_words


def row(low: float, mean: float, high: float) -> dict[str, object]:
    return {"low": low, "mean": mean, "high": high, "sure": not low <= 0 <= high}


def test_a_difference_without_chance_has_no_interval():
    assert difference_words(row(0.5, 0.5, 0.5), "share") == "+50.0 points"
    assert difference_words(row(0.0, 0.0, 0.0), "share") == "none"


def test_an_end_that_rounds_to_zero_has_no_sign():
    said = difference_words(row(-0.013, -0.007, -0.00001), "share")
    assert said == "-1.3 points".join(["-0.70 points (", " to 0 points)"])


def test_large_implied_numbers_are_told_in_words():
    item = {
        "name": "m.tokens",
        "low": 1.4e12,
        "mid": 1.41e12,
        "high": 4.2e12,
        "unit": "tokens",
        "source": "why",
    }
    assert implied_words(item) == "m.tokens = 1.41T (1.4T to 4.2T) tokens; why"
