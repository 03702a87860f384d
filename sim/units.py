"""Quantities at the border: like a customs desk, text with a unit comes in, a plain SI number goes through.

Inside rackcast every number is SI and its name carries the unit (``memory_bytes``, ``latency_s``). People
write ``"80 GiB"``, ``"400 Gbit/s"`` or ``"3 us"``: :func:`parse` turns that into the SI float for a
:class:`Dimension` and refuses the wrong kind of unit; :func:`exact` writes it back without loss, and the
``format_*`` functions show it to people with the digits they want.

Units are case-sensitive, because ``Gb`` (bits) and ``GB`` (bytes) differ. SI prefixes are decimal (``GB`` =
1e9), IEC prefixes binary (``GiB`` = 2**30), as in the SI brochure (9th edition) and IEC 80000-13. Only the
standard library, and Python 3.10.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real

_SI = {"": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "Z": 21}
_SMALL = {"p": -12, "n": -9, "u": -6, "m": -3, "": 0}
_IEC = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


@dataclass(frozen=True, slots=True)
class Dimension:
    """A kind of quantity: which units it takes, and how it is shown."""

    name: str
    """What a person calls it, for messages: ``"a size in bytes"``."""
    suffix: str
    """The ending of the names that hold it, without the underscore: ``"bytes"``."""
    units: Mapping[str, Decimal] = field(hash=False, repr=False)
    """Accepted unit -> SI value of one of it."""
    ladder: tuple[str, ...]
    """Units for display, growing."""
    examples: tuple[str, ...]


def _prefixed(units: Iterable[str], prefixes: Mapping[str, int], one: str = "1") -> dict[str, Decimal]:
    return {p + unit: Decimal(10) ** power * Decimal(one) for unit in units for p, power in prefixes.items()}


def _binary(units: Iterable[str], one: str = "1") -> dict[str, Decimal]:
    return {p + unit: Decimal(1024) ** power * Decimal(one) for unit in units for p, power in _IEC.items()}


def _words(values: Mapping[str, str]) -> dict[str, Decimal]:
    return {word: Decimal(value) for names, value in values.items() for word in names.split()}


_BYTE = _prefixed(("B",), _SI) | _binary(("B",)) | _words({"KB": "1e3", "byte bytes": "1"})
_BIT = _prefixed(("bit", "b"), _SI) | _binary(("bit",)) | _words({"Kb Kbit": "1e3", "bits": "1"})
_FLOW = _BYTE | {unit: one / 8 for unit, one in _BIT.items()}
_TIME = _prefixed(("s",), _SMALL) | _words(
    {
        "sec second seconds": "1",
        "min minute minutes": "60",
        "h hr hour hours": "3600",
        "d day days": "86400",
        "week weeks": "604800",
        "yr year years": "31557600",  # Julian year, 365.25 days
    }
)
_WORK = _prefixed(("FLOP", "FLOPs", "OP", "OPs"), _SI)
_HOURLY = [f"{gpu}{h}" for gpu in ("/", "/GPU/", "/GPU-", "/gpu/", "/gpu-") for h in ("h", "hr", "hour")]
_THOUSANDS = {"": "1", "k": "1e3", "M": "1e6", "B": "1e9"}
_EVENTS = ("", "req", "request", "requests", "job", "jobs", "token", "tokens")

BYTES = Dimension(
    "a size in bytes", "bytes", _BYTE, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), ("80 GiB", "1.5 TB")
)
BITS = Dimension("a number of bits", "bits", _BIT, ("bit", "kbit", "Mbit", "Gbit", "Tbit"), ("400 Gbit",))
BYTES_PER_S = Dimension(
    "a bandwidth",
    "bytes_per_s",
    {f"{unit}{per}": one for unit, one in _FLOW.items() for per in ("/s", "/sec")}
    | {f"{unit}ps": one for unit, one in _FLOW.items() if unit[-1] in "Bb"},
    ("B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s", "EB/s"),
    ("2 TB/s", "400 Gbit/s"),
)
SECONDS = Dimension(
    "a time",
    "s",
    _TIME,
    ("ps", "ns", "us", "ms", "s", "min", "h", "d", "yr"),
    ("3 us", "90 min", "1 h 30 min"),
)
PER_S = Dimension(
    "a rate of events",
    "per_s",
    {f"{noun}/{unit}": 1 / one for noun in _EVENTS for unit, one in _TIME.items()},
    ("/s",),
    ("5 req/s", "120 /min", "2 /day"),
)
HERTZ = Dimension(
    "a frequency", "hz", _prefixed(("Hz",), _SI), ("Hz", "kHz", "MHz", "GHz"), ("1.98 GHz", "1410 MHz")
)
WATTS = Dimension("a power", "w", _prefixed(("W",), _SI), ("W", "kW", "MW", "GW"), ("700 W", "1.2 MW"))
JOULES = Dimension(
    "an energy",
    "j",
    _prefixed(("J",), _SI) | _prefixed(("Wh",), _SI, "3600"),
    ("J", "Wh", "kWh", "MWh", "GWh"),
    ("3.6 MJ", "12 kWh"),
)
FLOP = Dimension(
    "an amount of work",
    "flop",
    _WORK,
    ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"),
    ("2 PFLOP", "3.8e25 FLOP"),
)
FLOP_PER_S = Dimension(
    "a speed in FLOP/s",
    "flop_per_s",
    {f"{unit}/s": one for unit, one in _WORK.items()} | _prefixed(("FLOPS", "OPS"), _SI),
    ("FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s", "EFLOP/s"),
    ("989.4 TFLOP/s", "1.3 POP/s"),
)
USD = Dimension(
    "an amount of money",
    "usd",
    _words({f"${k} {k}$ {k}USD": one for k, one in _THOUSANDS.items()}),
    ("$", "$k", "$M", "$B"),
    ("$2.5", "$1.2M", "30 kUSD"),
)
USD_PER_GPU_HOUR = Dimension(
    "a price per GPU-hour",
    "usd_per_gpu_hour",
    {sign + per: Decimal(1) for sign in ("$", "USD") for per in _HOURLY},
    ("$/GPU/h",),
    ("$2.5/GPU/h", "2.5 USD/GPU-h"),
)
USD_PER_KWH = Dimension(
    "a price of energy",
    "usd_per_kwh",
    _words({"$/kWh USD/kWh": "1", "$/MWh USD/MWh": "1e-3"}),
    ("$/kWh",),
    ("$0.08/kWh", "80 USD/MWh"),
)
FRACTION = Dimension("a fraction", "frac", _words({"%": "0.01"}), ("%",), ("0.85", "85 %"))
COUNT = Dimension(
    "a count",
    "count",
    _words({"k K": "1e3", "M": "1e6", "B": "1e9", "T": "1e12"}),
    ("", "M", "B", "T"),
    ("16,384", "70B"),
)

DIMENSIONS = (
    *(BYTES, BITS, BYTES_PER_S, SECONDS, PER_S, HERTZ, WATTS, JOULES, FLOP, FLOP_PER_S),
    *(USD, USD_PER_GPU_HOUR, USD_PER_KWH, FRACTION, COUNT),
)

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_QUANTITY = re.compile(rf"({_NUMBER}|inf(?:inity)?|nan)\s*(?![\d.,])([^\d\s.,+-][^\d+]*)?", re.IGNORECASE)
_DOLLARS = re.compile(rf"\$\s*({_NUMBER})\s*(\S*)")


def dimension_of(name: str) -> Dimension | None:
    """The dimension a name claims by its ending (``link_bytes_per_s``: ``BYTES_PER_S``), or None."""
    fitting = [d for d in DIMENSIONS if name == d.suffix or name.endswith("_" + d.suffix)]
    return max(fitting, key=lambda d: len(d.suffix), default=None)


def parse(
    value: object,
    dimension: Dimension,
    *,
    minimum: float | None = None,
    positive: bool = False,
    allow_infinite: bool = False,
) -> float:
    """The SI float that ``value`` stands for.

    Numbers and texts without a unit are SI already; a text may carry a unit (``"80 GiB"``), a time several
    (``"1 h 30 min"``). Decimal text is converted exactly and rounded once.

    Args:
        value: number or text.
        dimension: what is expected.
        minimum: refuse less than this (SI); ``positive`` refuses zero and less.
        allow_infinite: accept ``"inf"``.

    Raises:
        ValueError: not a number, unknown unit, unit of another dimension, NaN, or outside the range; the
            message names the value, what was expected and examples.
    """
    if isinstance(value, str):
        number = _parse_text(value, dimension)
    elif isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
    else:
        raise ValueError(f"{value!r} is not a number or a text with a unit; {_expected(dimension)}")
    if math.isnan(number):
        raise ValueError(f"{value!r} is not a number; {_expected(dimension)}")
    if math.isinf(number) and not allow_infinite:
        raise ValueError(f"{value!r} is not finite; {_expected(dimension)}")
    if positive and number <= 0:
        raise ValueError(f"{value!r} must be more than 0; {_expected(dimension)}")
    if minimum is not None and number < minimum:
        raise ValueError(f"{value!r} must be at least {minimum:g}; {_expected(dimension)}")
    return number


def _expected(dimension: Dimension) -> str:
    return f"expected {dimension.name}, for example {' or '.join(map(repr, dimension.examples))}"


def _parse_text(text: str, dimension: Dimension) -> float:
    rest = text.strip().replace("µ", "u").replace("μ", "u")
    sign, rest = (-1.0, rest[1:]) if rest.startswith("-") else (1.0, rest.removeprefix("+"))
    if dollars := _DOLLARS.fullmatch(rest):
        rest = f"{dollars[1]} ${dollars[2]}"
    pieces = []
    while part := _QUANTITY.match(rest):
        pieces.append((part[1], (part[2] or "").strip()))
        rest = rest[part.end() :].strip()
    several = len(pieces) > 1 and (dimension is not SECONDS or any(unit == "" for _, unit in pieces))
    if rest or several or not pieces:
        raise ValueError(f"{text!r} is not a quantity; {_expected(dimension)}")
    return sign * sum(_convert(text, number, unit, dimension) for number, unit in pieces)


def _convert(text: str, number: str, unit: str, dimension: Dimension) -> float:
    unit = re.sub(r"\s*\bper\b\s*", "/", unit).replace(" ", "")
    factor = Decimal(1) if unit == "" else dimension.units.get(unit)
    if factor is not None:
        return float(Decimal(number.replace(",", "").replace("_", "")) * factor)
    other = next((d for d in DIMENSIONS if unit in d.units), None)
    if other is not None:
        raise ValueError(f"{text!r}: {unit!r} is a unit of {other.name}; {_expected(dimension)}")
    near = [known for known in dimension.units if known.casefold() == unit.casefold()]
    near = near or difflib.get_close_matches(unit, dimension.units, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"{text!r}: unknown unit {unit!r}{hint}; {_expected(dimension)}")


def exact(value: float, dimension: Dimension) -> str:
    """The shortest text with a unit that :func:`parse` reads back as exactly ``value``: for people's files.

    Sizes may take either family of prefixes; of equally short texts the largest unit wins.
    """
    value = parse(value, dimension, allow_infinite=True)
    text = _join(repr(value).removesuffix(".0"), _unit_one(dimension), dimension)
    if not math.isfinite(value) or value == 0:
        return text
    texts = [text]
    for unit in (*dimension.ladder, *(("kB", "MB", "GB", "TB", "PB") if dimension is BYTES else ())):
        number = (Decimal(repr(value)) / dimension.units.get(unit, Decimal(1))).normalize()
        text = _join(format(number, "f" if -7 < number.adjusted() < 16 else "e"), unit, dimension)
        if parse(text, dimension) == value:
            texts.append(text)
    return min(reversed(texts), key=lambda text: (len(text), text.lstrip("-$").startswith("0.")))


def _unit_one(dimension: Dimension) -> str:
    return next((unit for unit in dimension.ladder if dimension.units.get(unit, 1) == 1), "")


def format_quantity(value: float, dimension: Dimension, digits: int = 3) -> str:
    """``value`` (SI) for people: ``digits`` significant digits in the largest unit that keeps it above one.

    Whole digits are never rounded away (``"1,023 GiB"`` rather than ``"1020 GiB"``). NaN is ``"n/a"``.
    """
    if not math.isfinite(value):
        return "n/a" if math.isnan(value) else str(value)
    if value == 0:
        return _join("0", _unit_one(dimension) or dimension.ladder[0], dimension)
    chosen = dimension.ladder[0]
    number = ""
    for unit in dimension.ladder:
        scaled = value / float(dimension.units.get(unit, 1))
        shown = _rounded(scaled, digits)
        if number and abs(float(shown)) < (2.0 if unit in _LATE else 1.0):
            break
        chosen, number = unit, shown
    whole, dot, decimals = number.partition(".")
    return _join(f"{int(whole):,}{dot}{decimals}" if len(whole) > 4 else number, chosen, dimension)


# People read "90 s" and "36 h" better than "1.5 min" and "1.5 d": these units start at two.
_LATE = ("min", "h", "d", "yr")


def _rounded(value: float, digits: int) -> str:
    decimals = min(max(0, digits - 1 - math.floor(math.log10(abs(value)))), 300)
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _join(number: str, unit: str, dimension: Dimension) -> str:
    if unit.startswith("$"):
        sign, amount = ("-", number[1:]) if number.startswith("-") else ("", number)
        return f"{sign}${amount}{unit[1:]}"
    return number + unit if dimension is COUNT else f"{number} {unit}".rstrip()


def format_bytes(value: float, digits: int = 3) -> str:
    """Bytes with a binary prefix: ``"80 GiB"``."""
    return format_quantity(value, BYTES, digits)


def format_bytes_per_s(value: float, digits: int = 3) -> str:
    """Bytes per second, decimal as vendors print it: ``"3.35 TB/s"``."""
    return format_quantity(value, BYTES_PER_S, digits)


def format_seconds(value: float, digits: int = 3) -> str:
    """A time: ``"3.2 us"``, ``"93.2 s"``, ``"36 h"``, ``"12.5 d"``."""
    return format_quantity(value, SECONDS, digits)


def format_flop(value: float, digits: int = 3) -> str:
    """Work: ``"2.1 EFLOP"``."""
    return format_quantity(value, FLOP, digits)


def format_flop_per_s(value: float, digits: int = 3) -> str:
    """Speed: ``"989 TFLOP/s"``."""
    return format_quantity(value, FLOP_PER_S, digits)


def format_watts(value: float, digits: int = 3) -> str:
    """Power: ``"10.2 kW"``."""
    return format_quantity(value, WATTS, digits)


def format_joules(value: float, digits: int = 3) -> str:
    """Energy (J): ``"12 kWh"``."""
    return format_quantity(value, JOULES, digits)


def format_usd(value: float, digits: int = 3) -> str:
    """Money: ``"$2.5"``, ``"$1.25M"``."""
    return format_quantity(value, USD, digits)


def format_percent(frac: float, decimals: int = 0, sign: bool = False) -> str:
    """A fraction as percent: ``"85.3 %"``; with ``sign`` a change: ``"+2.0 %"``."""
    return f"{100 * frac:{'+' if sign else ''}.{decimals}f} %"


def format_count(value: float, digits: int = 3) -> str:
    """A count: whole below a million (``"16,384"``), then ``"70.6B"``."""
    return format_quantity(value, COUNT, digits)
