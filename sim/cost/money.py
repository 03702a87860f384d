"""Money, energy and carbon of machines in their simplest exact forms: the household book of a computing centre.

The one place of price formulas: sim/planning/capacity writes its ledgers with them. Arguments broadcast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def annuity_frac(rate_frac: ArrayLike, periods: float, residual_frac: ArrayLike = 0.0) -> Floats:
    """Payment at the end of each of ``periods`` over the price, at interest ``rate_frac`` a period, that leaves
    ``residual_frac`` of the price at the end: ``(1 - residual v) i / (1 - v)``, ``v = (1 + i)^-n``.

    Brealey, Myers and Allen, Principles of Corporate Finance (annuities; leasing). Without interest the price is paid
    in equal parts.
    """
    rate, residual = np.asarray(rate_frac, dtype=float), np.asarray(residual_frac, dtype=float)
    charged = np.where(rate == 0, 1.0, rate)
    discount = (1 + charged) ** -float(periods)
    return np.asarray(
        np.where(rate == 0, (1 - residual) / periods, (1 - residual * discount) * charged / (1 - discount))
    )


def capital_recovery_per_year(rate_frac: float, years: float) -> float:
    """Share of a price that is paid each year to own it for ``years`` at this interest: an annuity that leaves nothing,
    ``i (1+i)^n / ((1+i)^n - 1)``."""
    return float(annuity_frac(rate_frac, years))


def worth_frac(age_frac: ArrayLike, residual_frac: ArrayLike) -> Floats:
    """What a machine would sell for over its price, ``age_frac`` of its life old: ``residual^age``, then kept.

    It loses the same share each month (declining balance): used accelerators lose most at first (25-35 % of the price
    after 36 months on price pages; a straight line to 12 % after 60 months would say 47 %).
    """
    return np.asarray(np.asarray(residual_frac, dtype=float) ** np.clip(age_frac, 0.0, 1.0))


def usd_per_useful_gpu_hour(
    usd_per_gpu_hour: float, scheduling_frac: float, runtime_frac: float, program_frac: float
) -> float:
    """Price over goodput, ``price / (S R P)``: share of time scheduled, share of that which lasts, share of peak
    reached (the three goodputs of Wongpanich et al. 2025, arXiv 2502.06982)."""
    return usd_per_gpu_hour / (scheduling_frac * runtime_frac * program_frac)


def facility_energy_wh(hours: ArrayLike, rated_w: ArrayLike, power_frac: ArrayLike, pue: ArrayLike) -> Floats:
    """Energy at the meter of the site of ``hours`` of machines rated ``rated_w``, in watt-hours: ``t P f PUE``.

    The power share is of the node's rated power: H100 nodes in heavy training were measured at 0.76 (arXiv 2506.14551).
    """
    drawn = np.asarray(hours, dtype=float) * np.asarray(rated_w) * np.asarray(power_frac)
    return np.asarray(drawn * np.asarray(pue))


def carbon_kg(energy_kwh: ArrayLike, kg_per_kwh: ArrayLike) -> Floats:
    """Operational carbon, location-based: energy x intensity of the grid."""
    return np.asarray(np.asarray(energy_kwh, dtype=float) * np.asarray(kg_per_kwh))
