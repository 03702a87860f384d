"""From readings to a calibration card: each table of a measurement file goes to the fit of its kind.

The fits use the very cost functions that predictions use, so what is fitted here is what is predicted there.
scipy is needed by the fits alone and is imported with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sim.spec.device import Device
from sim.spec.profile import Constant, Fit, Profile

if TYPE_CHECKING:
    from calibrate.measurements import Measurements

FEWEST_ROWS = 4
"""Fewer rows of a kind tell less than the assumptions they would replace."""

Columns = Mapping[str, Any]
"""Column arrays, as :meth:`calibrate.measurements.Measurements.columns` gives them."""


Fitter = Callable[[Columns, Mapping[str, Device], str, Sequence[Fit]], tuple[Sequence[Fit], Sequence[str]]]
"""(columns, devices, source, prior) -> (fits, what was left out and why)."""


RowFitter = Callable[[Sequence[Mapping[str, Any]], Mapping[str, Device], str, Sequence[Fit]], Sequence[Fit]]
"""(rows, devices, source, fits to build on) -> fits."""


class NothingToFitError(ValueError):
    """The measurements hold too little for any fit."""


def fit_measurements(
    measurements: Measurements,
    devices: Mapping[str, Device] | None = None,
    *,
    prior: Sequence[Fit] = (),
    name: str = "",
    source: str = "",
) -> Profile:
    """Fit everything in a measurement file.

    Args:
        measurements: what a run found.
        devices: datasheets by the ``gpu`` name in the rows; names without one use the stand-in that the file
            carries (best rates seen), and the provenance says so.
        prior: fits to start from and to lean on where the measurements are thin (the shipped ones, say).
        name: of the profile; default: the devices' names.
        source: for every fitted constant; default: where and when it was measured.

    Raises:
        NothingToFitError: no table has enough rows.
    """
    environment = measurements.environment
    known = {**measurements.devices, **(devices or {})}
    gpus = gpu_names(measurements)
    stand_ins = [gpu for gpu in gpus if gpu not in (devices or {})]
    source = source or (
        f"rackcast calibrate on {environment.get('device', 'unknown device')}, "
        f"{environment.get('measured_at', 'date unknown')}"
    )
    tables = {table: measurements.columns(table) for table in measurements.tables}
    fits, left_out = fit_tables(tables, known, source, prior)
    if not fits:
        raise NothingToFitError("nothing to fit: " + ("; ".join(left_out) or "the file has no rows"))
    provenance = {
        "command": "calibrate fit",
        "environment": dict(environment),
        "settings": dict(measurements.settings),
        "rows": {table: len(rows) for table, rows in measurements.tables.items()},
        "complete": measurements.complete,
        "warnings": list(measurements.warnings),
        "left_out": left_out,
    }
    if stand_ins:
        provenance["stand_in_devices"] = {
            gpu: _device_document(known[gpu]) for gpu in stand_ins if gpu in known
        }
    return Profile(name or " + ".join(gpus) or "calibration", tuple(fits), provenance)


def fit_tables(
    tables: Mapping[str, Columns], devices: Mapping[str, Device], source: str, prior: Sequence[Fit] = ()
) -> tuple[list[Fit], list[str]]:
    """Fits of every known table, and one sentence for each thing that was left out.

    Args:
        tables: those of a measurement file, as column arrays; later ones lean on the fits of earlier ones.
        devices: datasheet or stand-in of each name in the ``gpu`` columns.
        source: for every fitted constant.
        prior: fits to lean on.
    """
    from calibrate.fit import layer, node

    fitters: dict[str, Fitter] = {
        "gemm": _fit_gemm,
        "memory": _fit_memory,
        "attention": _fit_attention,
        "launch": _fit_launch,
        "collectives": _fit_collectives,
        "convolution": _by_rows(node.fit_convolution),
        "embedding": _by_rows(node.fit_embedding),
        "optimizer": _by_rows(node.fit_optimizer),
        "overlap": _by_rows(node.fit_overlap),
        "layer": _by_rows(layer.fit_layer),
        "power": _by_rows(node.fit_power),
        "compression": _by_rows(node.fit_compression),
        **{table: _by_rows(_rates(table)) for table in RATES},
    }
    fits: list[Fit] = []
    left_out: list[str] = []
    for table, fitter in fitters.items():
        columns = tables.get(table) or {}
        rows = len(next(iter(columns.values()), ()))
        fewest = FEWEST_ROWS if table in ("gemm", "memory", "attention", "collectives") else 1
        if rows >= fewest:
            try:
                found, unused = fitter(columns, devices, source, [*fits, *prior])
            except (ValueError, KeyError) as fault:  # rows that lean on a rate which nothing measured
                left_out.append(f"{table}: {fault}")
                continue
            if not found and not unused:
                unused = [f"{rows} rows, too few of any one kind for a fit"]
            fits += found
            left_out += [f"{table}: {reason}" for reason in unused]
        elif rows:
            left_out.append(f"{table}: {rows} rows, fewer than {fewest}")
    return fits, left_out


RATES = ("copies", "storage", "loader", "security")
"""Tables of an operation on so many bytes."""


def _rates(table: str) -> RowFitter:
    from calibrate.fit import node

    def fit(
        rows: Sequence[Mapping[str, Any]], devices: Mapping[str, Device], source: str, prior: Sequence[Fit]
    ) -> Sequence[Fit]:
        del prior
        return node.fit_rates(table, rows, devices, source)

    return fit


def _by_rows(fit: RowFitter) -> Fitter:
    """A fitter of rows as a fitter of columns; cells that a row lacks are left out of it."""

    def fitter(
        columns: Columns, devices: Mapping[str, Device], source: str, prior: Sequence[Fit]
    ) -> tuple[Sequence[Fit], Sequence[str]]:
        known, left_out = _with_device(columns, devices)
        rows = [
            {name: cell for name, cell in zip(known, cells, strict=True) if cell == cell and cell != ""}
            for cells in zip(*known.values(), strict=True)
        ]
        return (fit(rows, devices, source, prior) if rows else []), left_out

    return fitter


def gpu_names(measurements: Measurements) -> list[str]:
    """Devices that the rows speak of, in the order of their first row."""
    return list(dict.fromkeys(str(row["gpu"]) for rows in measurements.tables.values() for row in rows))


def _device_document(device: Device) -> dict[str, Any]:
    return {
        "key": device.key,
        "generation": device.generation,
        "kind": "measured",
        "source": "best rates in these measurements; predictions must use these as the peaks",
        "flop_per_s": dict(device.flop_per_s),
        "memory_bytes_per_s": device.memory_bytes_per_s,
        "scale_up_bytes_per_s": device.scale_up_bytes_per_s,
        "memory_bytes": device.memory_bytes,
        "l2_bytes": device.l2_bytes,
        "sm_count": device.sm_count,
        "host_bytes_per_s": device.host_bytes_per_s,
        "vendor": device.vendor,
    }


def _keep(columns: Columns, keep: Sequence[bool]) -> dict[str, Any]:
    import numpy as np

    chosen = np.asarray(keep, dtype=bool)
    return {name: values[chosen] for name, values in columns.items()}


def _fit_gemm(
    columns: Columns, devices: Mapping[str, Device], source: str, prior: Sequence[Fit]
) -> tuple[list[Fit], list[str]]:
    from calibrate.fit import gemm

    rows, left_out = _with_device(columns, devices)
    own = [fit for fit in prior if fit.op == "gemm"]
    fits = gemm.fit(rows, devices, source, prior=own) if len(rows["gpu"]) >= FEWEST_ROWS else []
    return fits, left_out


def _fit_memory(
    columns: Columns, devices: Mapping[str, Device], source: str, prior: Sequence[Fit]
) -> tuple[list[Fit], list[str]]:
    from calibrate.fit import memory_bound
    from sim.cost.kernels.memory_bound import PASSES

    rows, left_out = _with_device(columns, devices)
    unknown = sorted({str(op) for op in rows["op"] if op not in PASSES})
    if unknown:
        left_out.append(f"operations without a cost function: {', '.join(unknown)}")
        rows = _keep(rows, [op in PASSES for op in rows["op"]])
    own = [fit for fit in prior if fit.op == "memory_bound"]
    fits = memory_bound.fit(rows, devices, source, prior=own) if len(rows["gpu"]) >= FEWEST_ROWS else []
    return fits, left_out


def _fit_attention(
    columns: Columns, devices: Mapping[str, Device], source: str, prior: Sequence[Fit]
) -> tuple[list[Fit], list[str]]:
    from calibrate.fit import attention

    rows, left_out = _with_device(columns, devices)
    own = [fit for fit in prior if fit.op.startswith("attention")]
    fits = attention.fit(rows, devices, source, prior=own) if len(rows["gpu"]) >= FEWEST_ROWS else []
    return fits, left_out


def _fit_launch(
    columns: Columns, devices: Mapping[str, Device], source: str, prior: Sequence[Fit]
) -> tuple[list[Fit], list[str]]:
    """Launch cost is read off, not fitted: one number a mode, with the interval it was measured with."""
    del prior
    parameters: dict[tuple[str, str], dict[str, Constant]] = {}
    for number, gpu in enumerate(columns["gpu"]):
        time_s, low_s, high_s = (
            float(columns[name][number]) * 1e-6 for name in ("time_us", "low_us", "high_us")
        )
        names = str(gpu), str(columns["engine"][number])
        parameters.setdefault(names, {})[f"{columns['mode'][number]}_s"] = Constant(
            time_s, "s", "measured", source, low_s, high_s
        )
    fits = []
    for (gpu, engine), constants in parameters.items():
        device = devices.get(gpu)
        key = {"accelerator": device.key, "generation": device.generation} if device else {"accelerator": gpu}
        fits.append(Fit("launch", key | {"engine": engine}, constants))
    return fits, []


def _fit_collectives(
    columns: Columns, devices: Mapping[str, Device], source: str, prior: Sequence[Fit]
) -> tuple[list[Fit], list[str]]:
    from calibrate.fit import collectives

    count = len(columns["gpu"])
    rows = [{name: values[number] for name, values in columns.items()} for number in range(count)]
    seen = [collectives.observation(row, devices) for row in rows]
    refused = [one for one in seen if isinstance(one, str)]
    timed = [one for one in seen if not isinstance(one, str)]
    left_out = [f"{refused.count(reason)} rows: {reason}" for reason in dict.fromkeys(refused)]
    fits = collectives.fit(timed, source, prior=prior) if len(timed) >= FEWEST_ROWS else []
    return fits, left_out


def _with_device(columns: Columns, devices: Mapping[str, Device]) -> tuple[dict[str, Any], list[str]]:
    keep = [str(gpu) in devices for gpu in columns["gpu"]]
    unknown = sorted({str(gpu) for gpu, kept in zip(columns["gpu"], keep, strict=True) if not kept})
    return _keep(columns, keep), [f"no datasheet and no stand-in for {gpu!r}" for gpu in unknown]
