"""The smaller instruments of a node: ratios and rates that are read off more than fitted.

Each function turns one table into fits: what a convolution takes over the product it amounts to, what an
optimizer reaches of the memory's rate, what a copy starts with and streams at. Middles are medians, and intervals
say how far the next reading may lie.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibrate.fit.common import Z80, errors, fit_parameters
from calibrate.microbenchmarks.compression import KEEP_FRAC as COMPRESSION_KEEP_FRAC
from calibrate.microbenchmarks.compression import RANK as COMPRESSION_RANK
from sim.cost import compression
from sim.cost.kernels import embedding
from sim.cost.kernels.convolution import Convolution, convolution, taps_of
from sim.cost.optimizer import PARAMETERS as OPTIMIZER
from sim.cost.optimizer import RULES, update_s
from sim.cost.parameters import Parameter
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit

Row = Mapping[str, Any]
Floats = NDArray[np.float64]
ONE_READING = 0.2
"""Standard deviation of the logarithm taken for a ratio of which there is one reading (assumed)."""


def spread_constant(ratios: ArrayLike, unit: str, source: str) -> Constant:
    """Median of positive readings with the 80 % interval of the next one.

    Half width in the logarithm: 1.28 s sqrt(1 + 1/n) t-widened by 1 + (1.28^2 + 1) / (4 (n - 1)) (first term of the
    Cornish-Fisher expansion of Student's t; Abramowitz and Stegun 26.7.5), s from the readings.
    """
    logs = np.log(np.asarray(ratios, dtype=float))
    count, middle = len(logs), float(np.median(logs))
    sigma = ONE_READING if count == 1 else float(logs.std(ddof=1))
    widened = 1.0 if count == 1 else 1 + (Z80**2 + 1) / (4 * (count - 1))
    half = Z80 * sigma * np.sqrt(1 + 1 / count) * widened
    low, value, high = (float(f"{np.exp(x):.4g}") for x in (middle - half, middle, middle + half))
    return Constant(value, unit, "measured", source, low, high)


def grouped(rows: Iterable[Row], *names: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the text of some columns, in the order of their first row."""
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(_word(row.get(name, "")) for name in names)].append(row)
    return dict(found)


def _word(cell: Any) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def seconds(rows: Sequence[Row]) -> Floats:
    """Measured seconds of the rows."""
    return np.array([float(row["time_us"]) * 1e-6 for row in rows])


def need_memory_rate(device: Device) -> None:
    """Refuse a stand-in that no memory-bound operation was measured on.

    Raises:
        ValueError: its memory has no rate to be a share of.
    """
    if device.memory_bytes_per_s <= 0:
        raise ValueError(f"{device.key}: no memory rate; measure part memory, too")


def own_key(device: Device) -> dict[str, str]:
    """What every fit of a device is filed under."""
    return {"accelerator": device.key, "generation": device.generation}


def fit_convolution(
    rows: Sequence[Row], devices: Mapping[str, Device], source: str, known: Sequence[Fit]
) -> list[Fit]:
    """Time over that of the implicit product, by pass, number format, and one tap against many.

    Errors: each row predicted by the others of its group (leave one out).
    """
    fits = []
    plain = [fit for fit in known if fit.op != "convolution"]
    columns = ("gpu", "pass", "dtype", "engine", "taps")
    thick = [dict(row, taps=taps_of(int(row["kernel"]))) for row in rows if int(row["groups"]) == 1]
    for (gpu, phase, dtype, engine, taps), some in grouped(thick, *columns).items():
        device = devices[gpu]
        need_memory_rate(device)
        physics = np.array([_convolution_s(plain, device, row, engine) for row in some])
        ratios = seconds(some) / physics
        left_out = np.array(
            [np.median(np.delete(ratios, i)) if len(ratios) > 1 else 1.0 for i in range(len(ratios))]
        )
        key = {"phase": phase, "dtype": SHORT.get(dtype, dtype), "engine": engine, "taps": taps}
        fits.append(
            Fit(
                "convolution",
                own_key(device) | key,
                {"gemm_ratio": spread_constant(ratios, "1", source)},
                error=errors(physics * left_out, seconds(some), "each shape left out in turn"),
            )
        )
    return fits


SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def _convolution_s(fits: Sequence[Fit], device: Device, row: Row, engine: str) -> float:
    sides = {name: (int(row[name]),) * 2 for name in ("size", "kernel", "stride", "padding")}
    shape = Convolution(int(row["batch"]), int(row["in_channels"]), int(row["out_channels"]), **sides)
    found = convolution(fits, device, shape, str(row["dtype"]), pass_name=str(row["pass"]), engine=engine)
    return float(found.seconds)


def fit_embedding(
    rows: Sequence[Row], devices: Mapping[str, Device], source: str, known: Sequence[Fit]
) -> list[Fit]:
    """Share of the bandwidth that random rows reach, first visits of pages, and the sparse update, by device."""
    del known
    fits = []
    for (gpu, engine), some in grouped(rows, "gpu", "engine").items():
        device = devices[gpu]
        need_memory_rate(device)

        def predict(
            values: Mapping[str, float], device: Device = device, some: Sequence[Row] = some
        ) -> Floats:
            return np.array([_embedding_s(device, row, values) for row in some])

        constants = fit_parameters(embedding_parameters(), predict, seconds(some), source, start=VISIBLE)
        values = {name: constant.value for name, constant in constants.items()}
        error = errors(predict(values), seconds(some), "on the fitted rows")
        fits.append(Fit("embedding", own_key(device) | {"engine": engine}, constants, error=error))
    return fits


def embedding_parameters() -> list[Parameter]:
    """What is fitted to look-ups and updates, with the bounds of eager kernels."""
    wanted = [p for p in embedding.PARAMETERS if p.name != "access_bytes"]
    return [_wider(p, 1e-3, 1e3) if p.name in EAGER else p for p in wanted]


VISIBLE = {"page_s": 1e-8}
"""Where the fit of look-ups starts: at the assumed value a first visit is too small to have a slope (assumed)."""
EAGER = ("random_eff_frac", "sort_passes")
"""Parameters with wider bounds than a fused kernel's."""


def _wider(parameter: Parameter, low: float, high: float) -> Parameter:
    """The same with wider bounds: eager sparse kernels are far from what a fused one does."""
    return Parameter(
        parameter.name, parameter.unit, parameter.meaning, parameter.start, low, high, parameter.source
    )


def _embedding_s(device: Device, row: Row, values: Mapping[str, float]) -> float:
    sizes = [float(row[name]) for name in ("lookups", "bags", "dim", "table_rows")]
    if row["phase"] == "fwd":
        known = {name: value for name, value in values.items() if name not in embedding.UPDATE_ONLY}
        return float(embedding.lookup_s(device, *sizes, **known))
    return float(embedding.gradient_s(device, *sizes, **values))


def fit_optimizer(
    rows: Sequence[Row], devices: Mapping[str, Device], source: str, known: Sequence[Fit]
) -> list[Fit]:
    """Share of the memory bandwidth that each update rule reaches, by rule, kernel and ranks at once."""
    del known
    fits = []
    for (gpu, rule, kind, ranks), some in grouped(rows, "gpu", "rule", "kind", "ranks").items():
        device = devices[gpu]
        need_memory_rate(device)
        ideal = [
            float(update_s(float(row["parameters"]), RULES[rule], device.memory_bytes_per_s, 1.0))
            for row in some
        ]
        reached = np.array(ideal) / seconds(some)
        key = own_key(device) | {"rule": rule, "kind": kind, "ranks": ranks}
        fits.append(Fit("optimizer", key, {OPTIMIZER[0].name: spread_constant(reached, "1", source)}))
    return fits


def fit_overlap(
    rows: Sequence[Row], devices: Mapping[str, Device], source: str, known: Sequence[Fit]
) -> list[Fit]:
    """How much longer a product takes beside an all-reduce of its ranks."""
    del known
    fits = []
    for (gpu, ranks), some in grouped(rows, "gpu", "ranks").items():
        took = {str(row["mode"]): float(row["time_us"]) for row in some}
        if {"alone", "beside"} <= took.keys():
            slower = max(took["beside"] / took["alone"] - 1, 0.0)
            constant = Constant(float(f"{slower:.4g}"), "1", "measured", source)
            key = own_key(devices[gpu]) | {"ranks": ranks}
            fits.append(Fit("overlap", key, {"overlap_slowdown_frac": constant}))
    return fits


RATE_PARAMETERS = (
    Parameter("latency_s", "s", "fixed time of one operation", 1e-5, 1e-8, 1.0),
    Parameter("bytes_per_s", "byte/s", "rate of large ones", 1e9, 1e5, 1e13),
)


SMALL_FILES = ("open", "create")
"""Operations on files whose time does not hang on their bytes."""


def fit_rates(table: str, rows: Sequence[Row], devices: Mapping[str, Device], source: str) -> list[Fit]:
    """Seconds = latency + bytes / rate, by operation.

    The rate alone where only one size was measured, the latency alone for :data:`SMALL_FILES`.
    """
    fits = []
    for (gpu, op, pinned, engine), some in grouped(rows, "gpu", "op", "pinned", "engine").items():
        size = np.array([float(row["bytes"]) for row in some])
        key = own_key(devices[gpu]) | {"of": op, "engine": engine} | ({"pinned": pinned} if pinned else {})
        if op in SMALL_FILES:
            fits.append(Fit(table, key, {"latency_s": spread_constant(seconds(some), "s", source)}))
            continue
        if len(np.unique(size)) == 1:
            constants = {"bytes_per_s": spread_constant(size / seconds(some), "byte/s", source)}
            fits.append(Fit(table, key, constants))
            continue

        def predict(values: Mapping[str, float], size: Floats = size) -> Floats:
            return np.asarray(values["latency_s"] + size / values["bytes_per_s"])

        start = {"latency_s": float(seconds(some).min()), "bytes_per_s": float((size / seconds(some)).max())}
        constants = fit_parameters(RATE_PARAMETERS, predict, seconds(some), source, start=start)
        values = {name: constant.value for name, constant in constants.items()}
        error = errors(predict(values), seconds(some), "on the fitted rows")
        fits.append(Fit(table, key, constants, error=error))
    return fits


def fit_compression(
    rows: Sequence[Row], devices: Mapping[str, Device], source: str, known: Sequence[Fit]
) -> list[Fit]:
    """Time of a compression's kernels over what the cost model has for one rank, by method."""
    del known
    fits = []
    for (gpu, method, engine), some in grouped(rows, "gpu", "op", "engine").items():
        device = devices[gpu]
        need_memory_rate(device)
        modelled = np.array([_packing_s(method, float(row["values"]), device) for row in some])
        ratio = spread_constant(seconds(some) / modelled, "1", source)
        fits.append(
            Fit("compression", own_key(device) | {"of": method, "engine": engine}, {"packing_ratio": ratio})
        )
    return fits


def _packing_s(method: str, values: float, device: Device) -> float:
    """Modelled seconds of what :mod:`calibrate.microbenchmarks.compression` times: one rank, a square matrix."""
    side = values**0.5
    packed = {
        "fp16": compression.half_cast(values),
        "fp8": compression.fp8(values, 1),
        "top-k": compression.top_k(values, 1, COMPRESSION_KEEP_FRAC),
        "1-bit": compression.one_bit(values, 1),
        "power-sgd": compression.power_sgd(side, side, COMPRESSION_RANK),
    }[method]
    flop_per_s = max(device.flop_per_s.values(), default=float("inf"))
    return float(compression.packing_s(packed, device.memory_bytes_per_s, flop_per_s))


def fit_power(
    rows: Sequence[Row], devices: Mapping[str, Device], source: str, known: Sequence[Fit]
) -> list[Fit]:
    """Watts by load."""
    del known
    fits = []
    for (gpu,), some in grouped(rows, "gpu").items():
        watts = {f"{row['load']}_w": Constant(float(row["power_w"]), "W", "measured", source) for row in some}
        fits.append(Fit("power", own_key(devices[gpu]), watts))
    return fits
