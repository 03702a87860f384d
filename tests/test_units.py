"""Quantities in and out: what is refused, and that nothing is lost on the way."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import units

FINITE = st.floats(min_value=1e-12, max_value=1e24, allow_nan=False, allow_infinity=False)
DIMENSIONS = st.sampled_from(units.DIMENSIONS)


@pytest.mark.parametrize(
    ("text", "dimension", "expected"),
    [
        ("80 GiB", units.BYTES, 80 * 2**30),
        ("80GB", units.BYTES, 80e9),
        ("400 Gbit/s", units.BYTES_PER_S, 50e9),
        ("400Gbps", units.BYTES_PER_S, 50e9),
        ("2 TB/s", units.BYTES_PER_S, 2e12),
        ("3 us", units.SECONDS, 3e-6),
        ("3 µs", units.SECONDS, 3e-6),
        ("1 h 30 min", units.SECONDS, 5400.0),
        ("1.98 GHz", units.HERTZ, 1.98e9),
        ("700 W", units.WATTS, 700.0),
        ("12 kWh", units.JOULES, 43.2e6),
        ("989.4 TFLOP/s", units.FLOP_PER_S, 989.4e12),
        ("1.3 POP/s", units.FLOP_PER_S, 1.3e15),
        ("3.8e25 FLOP", units.FLOP, 3.8e25),
        ("$2.5", units.USD, 2.5),
        ("-$1,200", units.USD, -1200.0),
        ("$1.2M", units.USD, 1.2e6),
        ("$2.5/GPU/h", units.USD_PER_GPU_HOUR, 2.5),
        ("2.5 USD per GPU-hour", units.USD_PER_GPU_HOUR, 2.5),
        ("80 USD/MWh", units.USD_PER_KWH, 0.08),
        ("85 %", units.FRACTION, 0.85),
        ("16,384", units.COUNT, 16384.0),
        ("70B", units.COUNT, 70e9),
        ("120 per min", units.PER_S, 2.0),
        ("  42 ", units.BYTES, 42.0),
    ],
)
def test_text_with_a_unit_becomes_si(text, dimension, expected):
    assert units.parse(text, dimension) == expected


@pytest.mark.parametrize("value", [3, 3.0, np.float64(3), np.int32(3), "3"])
def test_plain_numbers_are_si_already(value):
    assert units.parse(value, units.SECONDS) == 3.0


@pytest.mark.parametrize(
    ("value", "dimension", "says"),
    [
        ("80 Gb", units.BYTES, "'80 Gb': 'Gb' is a unit of a number of bits; expected a size in bytes"),
        ("80 GB/s", units.BYTES, "a unit of a bandwidth; expected a size in bytes, for example '80 GiB'"),
        ("80 gib", units.BYTES, "unknown unit 'gib' (did you mean 'GiB'?)"),
        ("80 furlongs", units.BYTES, "unknown unit 'furlongs'"),
        ("1,00 B", units.BYTES, "'1,00 B' is not a quantity"),
        ("1.2.3 s", units.SECONDS, "is not a quantity"),
        ("1 ms 3", units.SECONDS, "is not a quantity"),
        ("3 GB 4 GB", units.BYTES, "is not a quantity"),
        ("", units.BYTES, "'' is not a quantity"),
        ("nan", units.SECONDS, "is not a number"),
        (math.nan, units.SECONDS, "nan is not a number"),
        ("inf", units.SECONDS, "is not finite"),
        (True, units.COUNT, "True is not a number or a text with a unit"),
        (None, units.COUNT, "None is not a number"),
        ([1], units.COUNT, "[1] is not a number"),
    ],
)
def test_the_refusal_names_value_and_expectation(value, dimension, says):
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        units.parse(value, dimension)
    assert f"expected {dimension.name}, for example {dimension.examples[0]!r}" in str(caught.value)


def test_ranges_are_checked_where_asked():
    assert units.parse("-5 s", units.SECONDS) == -5.0
    assert units.parse("inf", units.PER_S, allow_infinite=True) == math.inf
    assert units.parse(0, units.SECONDS, minimum=0) == 0.0
    with pytest.raises(ValueError, match="'0 s' must be more than 0"):
        units.parse("0 s", units.SECONDS, positive=True)
    with pytest.raises(ValueError, match="'-5 s' must be at least 0"):
        units.parse("-5 s", units.SECONDS, minimum=0)


@given(st.floats(allow_nan=False, allow_infinity=False), DIMENSIONS)
def test_exact_text_reads_back_bit_for_bit(value, dimension):
    assert units.parse(units.exact(value, dimension), dimension) == value


@given(FINITE, DIMENSIONS, st.integers(2, 6))
def test_shown_digits_are_right(value, dimension, digits):
    shown = units.parse(units.format_quantity(value, dimension, digits), dimension)
    assert shown == pytest.approx(value, rel=0.5000001 * 10.0 ** (1 - digits))


@given(FINITE, FINITE, DIMENSIONS)
def test_shown_order_is_true_order(a, b, dimension):
    low, high = sorted((a, b))
    shown = [units.parse(units.format_quantity(v, dimension), dimension) for v in (low, high)]
    assert shown[0] <= shown[1] * (1 + 1e-12)


@given(st.decimals(min_value=0, max_value=10**6, places=3), DIMENSIONS, st.data())
def test_a_unit_scales_its_number(number, dimension, data):
    unit = data.draw(st.sampled_from(sorted(dimension.units)))
    assert units.parse(f"{number} {unit}", dimension) == float(number * dimension.units[unit])


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (units.format_bytes, 80 * 2**30, "80 GiB"),
        (units.format_bytes, 1000 * 2**30, "1000 GiB"),
        (units.format_bytes, 1023.9 * 2**30, "1 TiB"),
        (units.format_bytes_per_s, 3.35e12, "3.35 TB/s"),
        (units.format_seconds, 3.2e-6, "3.2 us"),
        (units.format_seconds, 0.99999, "1 s"),
        (units.format_seconds, 93.2, "93.2 s"),
        (units.format_seconds, 36 * 3600, "36 h"),
        (units.format_seconds, 0, "0 s"),
        (units.format_flop, 3.8e25, "38,000 ZFLOP"),
        (units.format_flop_per_s, 989.4e12, "989 TFLOP/s"),
        (units.format_watts, 10200, "10.2 kW"),
        (units.format_joules, 43.2e6, "12 kWh"),
        (units.format_usd, -1.25e6, "-$1.25M"),
        (units.format_percent, 0.8531, "85 %"),
        (units.format_percent, 0, "0 %"),
        (units.format_count, 16384, "16,384"),
        (units.format_count, 70.6e9, "70.6B"),
        (units.format_count, math.nan, "n/a"),
        (units.format_count, -math.inf, "-inf"),
    ],
)
def test_people_read_this(function, value, expected):
    assert function(value) == expected


def test_exact_prefers_the_unit_that_reads_best():
    assert units.exact(989.4e12, units.FLOP_PER_S) == "989.4 TFLOP/s"
    assert units.exact(150754820096, units.BYTES) == "143771 MiB"
    assert units.exact(17179869184, units.BYTES) == "16 GiB"
    assert units.exact(0.0, units.SECONDS) == "0 s"


def test_names_tell_their_dimension():
    assert units.dimension_of("link_bytes_per_s") is units.BYTES_PER_S
    assert units.dimension_of("memory_bytes") is units.BYTES
    assert units.dimension_of("latency_s") is units.SECONDS
    assert units.dimension_of("arrivals_per_s") is units.PER_S
    assert units.dimension_of("layers") is None


def test_no_unit_means_two_things():
    seen: dict[str, set[str]] = {}
    for dimension in units.DIMENSIONS:
        for unit in dimension.units:
            seen.setdefault(unit, set()).add(dimension.suffix)
    shared = {unit: kinds for unit, kinds in seen.items() if len(kinds) > 1}
    assert set(shared) == {"B"}, "B is bytes for sizes and billions for counts, nothing else is shared"
