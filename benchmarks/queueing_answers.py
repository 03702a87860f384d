"""What is read off a run of a queue, and the controls that make few runs enough.

Controls are means over a stretch of jobs whose true value is known:

- of the inputs: times between submissions, work, their squares and product, shares of the kinds of jobs;
- *martingale controls* (Henderson and Glynn 2002, Math. Oper. Res. 27, 253): what the system held before a job came,
  times how far that job's own work, or the time until the next one, lies from its mean. Nobody knew these before, so
  the true mean is 0 for any rule of service;
- of a neighbouring system fed with the same jobs whose mean is known: one fast server (Pollaczek-Khinchine), and
  endless servers (Poisson). The fast server is no control for the rows it would prove (one server, by order).
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from benchmarks.queueing_models import Floats, Played, Setting, number_s

LOSES = ("M/G/c/c", "multirate-loss")
"""Rows without a queue: squared work and the fast server say little there, and have too long a tail to be regressed on
(with them the interval of q017 missed the exact value)."""
TAIL_S = 2.0
"""The wait beyond which a row of the table counts jobs."""
BY_ORDER = ("D/M/1", "M/D/1", "M/G/1", "M/G/inf")
"""Rows for which the fast server is what is to be proved, or says nothing."""


def fast_server_wait_s(asked: Setting) -> Floats:
    """Work before each job, at one server as fast as all devices together (Lindley 1952), ``[jobs]``."""
    work = asked.gpus * asked.service_s / asked.devices
    step = np.concatenate([[0.0], np.cumsum(work[:-1] - np.diff(asked.submit_s))])
    return np.asarray(step - np.minimum.accumulate(step))


def held_before(asked: Setting, end_s: Floats, gpus: Floats) -> Floats:
    """Devices that jobs submitted before each job hold, or wait for, when it comes, ``[jobs]``."""
    order = np.argsort(end_s, kind="stable")
    gone = np.concatenate([[0.0], np.cumsum(gpus[order])])
    come = np.concatenate([[0.0], np.cumsum(gpus)[:-1]])
    # a job that ends in the instant of a submission has gone by then
    return np.asarray(come - gone[np.searchsorted(end_s[order], asked.submit_s, side="right")])


def series(quantity: str, run: Played, held: Floats, warm: int, room: int) -> Floats:
    """A column whose mean over jobs is the quantity, ``[jobs - 1]``; time means are taken job by job until the next
    submission. ``warm`` jobs come before the first that counts; ``room`` is the number in the system that turns
    others away."""
    asked = run.setting
    if quantity.startswith("prob_block"):
        size = quantity.removeprefix("prob_block").strip("_").removesuffix("gpu")
        full = held + (int(size) if size else 1) > room
        _same_as_engine(run, held, room)
        return np.asarray(
            full[:-1], dtype=float
        )  # Poisson arrivals see time averages: every job is a witness
    if quantity == "prob_wait":
        return np.asarray(run.wait_s[:-1] > 1e-12, dtype=float)
    if quantity == "prob_wait_exceeds_2s":
        return np.asarray(run.wait_s[:-1] > 2, dtype=float)
    if quantity.startswith("mean_wait_s"):
        return run.wait_s[:-1]
    if quantity.startswith("mean_response_s"):
        return (run.end_s - asked.submit_s)[:-1]
    out_s = {"mean_number_in_queue": run.start_s, "mean_number_in_system": run.end_s}.get(quantity)
    if out_s is not None:
        number = number_s(asked.submit_s, asked.submit_s) - number_s(np.sort(out_s), asked.submit_s)
        return np.asarray(np.diff(number) / asked.mean_gap_s)
    if quantity == "var_number_in_system":
        return _squares(run, warm)
    raise ValueError(f"no quantity {quantity!r}")


def _same_as_engine(run: Played, held: Floats, room: int) -> None:
    if not np.array_equal(held + run.setting.gpus > room, run.refused):
        raise RuntimeError("jobs were turned away that fitted, or let in that did not")


def _squares(run: Played, warm: int) -> Floats:
    """Integral of (number in system - its mean)^2 until the next submission, over the mean gap."""
    asked = run.setting
    moments = np.concatenate([asked.submit_s, run.end_s])
    order = np.argsort(moments, kind="stable")
    step = np.concatenate([np.ones(asked.submit_s.size), -np.ones(run.end_s.size)])[order]
    moments, number = moments[order], np.cumsum(step)
    first, last = np.searchsorted(moments, asked.submit_s[[warm, -1]])
    lasts = np.diff(moments)
    mean = (number[first:last] * lasts[first:last]).sum() / (moments[last] - moments[first])
    total = np.concatenate([[0.0], np.cumsum((number[:-1] - mean) ** 2 * lasts)])
    at = total[np.searchsorted(moments, asked.submit_s)]
    return np.asarray(np.diff(at) / asked.mean_gap_s)


def surplus(model: str, p: dict[str, object], run: Played, held: Floats, means: dict[str, float]) -> Floats:
    """Controls job by job, each with true mean 0, ``[jobs - 1, controls]``; ``means`` as of :func:`moments`."""
    asked = run.setting
    gap, work = np.diff(asked.submit_s), (asked.gpus * asked.service_s)[:-1]
    late, more = gap / means["gap"] - 1, work / means["work"] - 1
    loses = model in LOSES
    columns = [late, more, gap**2 / means["gap2"] - 1, (late + 1) * (more + 1) - 1]
    if not loses:
        columns.append(work**2 / means["work2"] - 1)
    columns += [(asked.gpus[:-1] == size) - share for size, share in _shares(p, "job_gpus").items()]
    columns += [(asked.kind[:-1] == kind) - share for kind, share in _shares(p, "kinds").items()]
    queue = fast_server_wait_s(asked)[:-1]
    load = means["work"] / means["gap"] / asked.devices
    for before in (queue / means["work"] if load < 1 and not loses else None, held[:-1] / asked.devices):
        if before is not None:
            columns += [before * late, before * more, before**2 * late, before**2 * more]
    if asked.devices == 1 and "multirate" not in model and "loss" not in model:
        columns += [held[:-1] ** 3 * late, held[:-1] ** 3 * more]
    several = asked.devices > 1 and model != "M/G/inf"
    if load < 1 and not loses and model not in BY_ORDER and (several or model != "M/M/c"):
        wait_s = load * means["work2"] / means["work"] / asked.devices / 2 / (1 - load)
        columns.append(queue / wait_s - 1)
    if load < 1 and several and model == "M/M/c":
        # P(wait > t) = rho exp(-(c mu - lambda) t) at the fast server (Kleinrock I, 5.6)
        rate = (1 - load) * asked.devices / means["work"]
        columns.append((queue > 1e-12) / load - 1)
        for more_s in (0.0, 0.5, 1.0):
            over = load * np.exp(-rate * (TAIL_S + more_s))
            if over > 1e-3:
                late_s = np.maximum(queue - TAIL_S - more_s, 0.0)
                columns += [(late_s > 0) / over - 1, late_s * rate / over - 1, late_s * late, late_s * more]
    if several:
        columns += _endless(p, asked, means)
    return np.column_stack(columns)


def _shares(p: dict[str, object], of: str) -> dict[int, float]:
    """True shares of sizes or of classes, the last left out (they add up to 1)."""
    if of == "kinds":
        rates = list(p.get("arrival_rates", ()))  # type: ignore[call-overload]
        return {kind: rate / sum(rates) for kind, rate in enumerate(rates[:-1])}
    parts = list(p.get("probs" if "probs" in p else "offered_erlangs", ()))  # type: ignore[call-overload]
    sizes = list(p.get("job_gpus", ()))  # type: ignore[call-overload]
    return {size: part / sum(parts) for size, part in zip(sizes[:-1], parts[:-1], strict=False)}


def _endless(p: dict[str, object], asked: Setting, means: dict[str, float]) -> list[Floats]:
    """Devices that the same jobs would hold if there were no end of them, at thresholds near the true number."""
    offered = means["work"] / means["gap"]
    held = held_before(asked, asked.submit_s + asked.service_s, asked.gpus.astype(float))[:-1]
    law = held_law(p, offered)
    number = np.arange(law.size)
    edge = asked.devices
    near = sorted({edge - int(size) for size in _sizes(p)} | {round(edge * 1.1), round(edge * 1.2)})
    found = [held / offered - 1]
    for least in near:
        tail = float(law[least + 1 :].sum())
        if tail > 1e-4:
            over = float((np.maximum(number - least, 0) * law).sum())
            found += [(held > least) / tail - 1, np.maximum(held - least, 0) / over - 1]
    return found


def _sizes(p: dict[str, object]) -> list[int]:
    return list(p.get("job_gpus", [1]))  # type: ignore[call-overload]


def held_law(p: dict[str, object], offered: float) -> Floats:
    """Law of the devices held with endless devices: independent Poisson numbers of jobs of each size."""
    loads = list(p.get("offered_erlangs", [offered]))  # type: ignore[call-overload]
    law = np.ones(1)
    for size, load in zip(_sizes(p), loads, strict=True):
        most = int(load + 12 * np.sqrt(load) + 12)
        jobs = np.zeros(most * size + 1)
        jobs[::size] = stats.poisson.pmf(np.arange(most + 1), load)
        law = np.convolve(law, jobs)
    return law


def moments(model: str, p: dict[str, object], asked: Setting) -> dict[str, float]:
    """True first and second moments of gaps and of work (devices times service)."""
    gap = asked.mean_gap_s
    sizes, shares = np.array(_sizes(p), dtype=float), np.ones(1)
    if len(sizes) > 1:
        parts = np.array(p.get("probs", p.get("offered_erlangs")), dtype=float)
        shares = parts / parts.sum()
    mean = asked.mean_work_gpu_s / float(sizes @ shares)
    return {
        "gap": gap,
        "gap2": gap**2 if model == "D/M/1" else 2 * gap**2,
        "work": asked.mean_work_gpu_s,
        "work2": float(sizes**2 @ shares) * mean**2 * (1 + _variation(model, p)),
    }


def _variation(model: str, p: dict[str, object]) -> float:
    """Squared coefficient of variation of service."""
    law = "deterministic" if "service_s" in p else p.get("service", "exponential")
    if law == "hyperexponential":
        probs, rates = np.array(p["probs"]), np.array(p["rates"])
        return float(2 * (probs @ rates**-2.0) / (probs @ (1 / rates)) ** 2 - 1)
    shape = 0.5 if model == "M/G/1-PS" else 1.0
    return {
        "deterministic": 0.0,
        "exponential": 1.0,
        "uniform": 1 / 3 if law == "uniform" and p["low"] == 0 else 0.0,
        "lognormal": float(np.exp(p.get("sigma", 0.0) ** 2)) - 1,  # type: ignore[operator]
        "erlang": 1 / p["shape"] if law == "erlang" else 0.0,  # type: ignore[operator]
        "any": float(np.exp(shape**2)) - 1,
    }[str(law)]
