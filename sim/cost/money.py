"""Money, energy and carbon of a cluster in their simplest exact forms: the household book of a computing centre."""

from __future__ import annotations


def capital_recovery_per_year(rate_frac: float, years: float) -> float:
    """Share of a price that is paid each year to own it for ``years`` at this interest: ``i (1+i)^n / ((1+i)^n -
    1)``."""
    if rate_frac == 0:
        return 1 / years
    growth = float((1 + rate_frac) ** years)
    return rate_frac * growth / (growth - 1)


def usd_per_useful_gpu_hour(
    usd_per_gpu_hour: float, scheduling_frac: float, runtime_frac: float, program_frac: float
) -> float:
    """Price over goodput, ``price / (S R P)``: share of time scheduled, share of that which lasts, share of peak
    reached (the three goodputs of Wongpanich et al. 2025, arXiv 2502.06982)."""
    return usd_per_gpu_hour / (scheduling_frac * runtime_frac * program_frac)


def facility_energy_j(
    nodes: float,
    rated_w: float,
    busy_frac: float,
    busy_power_frac: float,
    idle_power_frac: float,
    pue: float,
    span_s: float,
) -> float:
    """Energy of nodes that are busy for a share of ``span_s``: ``N P (u f_busy + (1-u) f_idle) PUE t``.

    The power shares are of the node's rated power: H100 nodes in heavy training were measured at 0.76 (arXiv
    2506.14551).
    """
    mean_frac = busy_frac * busy_power_frac + (1 - busy_frac) * idle_power_frac
    return nodes * rated_w * mean_frac * pue * span_s


def carbon_kg(energy_j: float, grams_per_kwh: float) -> float:
    """Operational carbon, location-based: energy x intensity of the grid."""
    return energy_j / 3.6e6 * grams_per_kwh / 1000
