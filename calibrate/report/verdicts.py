"""Who passes: each figure against the middle of its peers, in units of how much peers usually differ.

Median and median absolute deviation, so that the sick do not set the norm. A device below 0.95 of its peers or a
link below 0.9 is marked when it also lies outside their scatter. Thresholds: L40S and GB200 screening practice,
docs/calibration.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibrate.report.figures import Figure
from sim.units import format_percent

DEVICE_FRAC, LINK_FRAC = 0.95, 0.9
"""Below this share of the fleet's median a device, a link, is suspect."""
SIGMAS = 4.5
"""And it must lie so many robust standard deviations below: of sixteen peers the deviation itself is known to a third
only, so 3 would cry wolf."""
LEAST_SPREAD_FRAC = 0.01
"""Spread assumed at the least: a fleet measured once each agrees by luck."""
FEWEST_PEERS = 4
"""Fewer figures have no middle to speak of; then only datasheet and profile stand beside them."""
DATASHEET_FRAC = 0.4
"""Below this share of the datasheet something is wrong whatever the peers do: measured devices reach 0.55 to 0.95
with their best product and stream. Assumed."""
JUDGED_BY_DATASHEET = ("matmul bf16", "matmul fp16", "memory")


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure beside its norms."""

    figure: Figure
    peers: int
    peer_ratio: float
    """Value over the median of the peers, itself among them; NaN with fewer than :data:`FEWEST_PEERS`."""
    sigmas: float
    """Robust standard deviations from that median; negative is slower."""
    reason: str = ""
    """Why it is marked; "" where it is not."""


def judge(found: Sequence[Figure]) -> list[Finding]:
    """Every figure with its verdict, in order of node, device and quantity."""
    groups: dict[tuple[str, str], list[Figure]] = {}
    for one in found:
        groups.setdefault((one.gpu, one.quantity), []).append(one)
    findings = []
    for group in groups.values():
        logs = sorted(math.log(one.value) for one in group)
        middle = _median(logs)
        spread = max(1.4826 * _median(sorted(abs(x - middle) for x in logs)), LEAST_SPREAD_FRAC)
        findings += [_finding(one, len(group), middle, spread) for one in group]
    return sorted(
        findings, key=lambda f: (_natural(f.figure.node), _natural(f.figure.device), f.figure.quantity)
    )


def _finding(one: Figure, peers: int, middle: float, spread: float) -> Finding:
    ratio, sigmas = math.nan, math.nan
    reasons = []
    if peers >= FEWEST_PEERS:
        away = math.log(one.value) - middle
        ratio, sigmas = math.exp(away), away / spread
        if ratio < (LINK_FRAC if one.link else DEVICE_FRAC) and sigmas < -SIGMAS:
            reasons.append(f"{100 * ratio:.0f} % of the median of {peers}")
    if one.quantity in JUDGED_BY_DATASHEET and one.value < DATASHEET_FRAC * one.datasheet:
        reasons.append(f"{100 * one.value / one.datasheet:.0f} % of the datasheet")
    where = f"device {one.device}: " if one.device else ""
    reason = f"{where}{one.quantity}: {' and '.join(reasons)}" if reasons else ""
    return Finding(one, peers, ratio, sigmas, reason)


def blame(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """Reasons by node. A slow pair counts against the node whose pairs are slow, else against the link alone.

    With pairs (a, b), (a, c), (b, c) slow only where c takes part, c has the bad cable and a and b are well.
    """
    reasons: dict[str, list[str]] = {}
    pairs: dict[str, list[tuple[Finding, tuple[str, ...]]]] = {}
    for finding in findings:
        if finding.figure.between:
            ends = tuple(end.strip() for end in finding.figure.between.split(","))
            pairs.setdefault(finding.figure.quantity, []).append((finding, ends))
        elif finding.reason:
            reasons.setdefault(finding.figure.node, []).append(finding.reason)
    for quantity, tests in pairs.items():
        slow: dict[str, list[bool]] = {}
        for finding, ends in tests:
            for end in ends:
                slow.setdefault(end, []).append(bool(finding.reason))
        bad = {end for end, marks in slow.items() if sum(marks) > len(marks) / 2}
        for end in sorted(bad):
            marks = slow[end]
            reasons.setdefault(end, []).append(f"{quantity}: slow in {sum(marks)} of {len(marks)} pairs")
        for finding, ends in tests:
            if finding.reason and not bad & set(ends):
                other = f"link {' - '.join(ends)}: {finding.reason}"
                reasons.setdefault(ends[0], []).append(other)
    return reasons


def node_verdict(findings: Sequence[Finding]) -> str:
    """The verdict on one node in a line: what is wrong with it, or how near to its datasheet (and to what the shipped
    profile expects) it comes; "" where no datasheet says anything of what was measured."""
    wrong = [reason for reasons in blame(findings).values() for reason in reasons]
    if wrong:
        return f"this node is suspect: {'; '.join(wrong)}"
    shares = []
    for figure in (one.figure for one in findings if not math.isnan(one.figure.datasheet)):
        expected = figure.profile_ratio
        beside = "" if math.isnan(expected) else f", {format_percent(expected)} of what is usual"
        share = format_percent(figure.value / figure.datasheet)
        shares.append(f"{figure.quantity} {share} of the datasheet{beside}")
    return f"this node is well: {'; '.join(shares)}" if shares else ""


def document(findings: Sequence[Finding], nodes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The report as one document.

    Args:
        findings: from :func:`judge`.
        nodes: reasons known beforehand by node (a device that hung, a run that was cut); every node is a key.
    """
    reasons = {node: list(before) for node, before in nodes.items()}
    for node, more in blame(findings).items():
        reasons.setdefault(node, []).extend(more)
    return {
        "nodes": [
            {"node": node, "passes": not reasons[node], "reasons": reasons[node]}
            for node in sorted(reasons, key=_natural)
        ],
        "quantities": _quantities(findings),
        "figures": [_row(one) for one in findings],
    }


def _quantities(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    rows = []
    for quantity in dict.fromkeys(one.figure.quantity for one in findings):
        mine = [one for one in findings if one.figure.quantity == quantity]
        values = sorted(one.figure.value for one in mine)
        shares = sorted(
            f.figure.value / f.figure.datasheet for f in mine if not math.isnan(f.figure.datasheet)
        )
        ratios = sorted(f.figure.profile_ratio for f in mine if not math.isnan(f.figure.profile_ratio))
        rows.append(
            {
                "quantity": quantity,
                "unit": mine[0].figure.unit,
                "count": len(mine),
                "median": _median(values),
                "lowest": values[0],
                "lowest_on": min(mine, key=lambda one: one.figure.value).figure.node,
                "datasheet_frac": _median(shares) if shares else None,
                "profile_ratio": _median(ratios) if ratios else None,
                "marked": sum(bool(one.reason) for one in mine),
            }
        )
    return sorted(rows, key=lambda row: (-row["marked"], row["datasheet_frac"] is None, str(row["quantity"])))


def _row(one: Finding) -> dict[str, Any]:
    figure = one.figure
    share = figure.value / figure.datasheet
    return {
        "node": figure.node,
        "device": figure.device,
        "quantity": figure.quantity,
        "value": figure.value,
        "unit": figure.unit,
        "peer_ratio": _known(one.peer_ratio),
        "sigmas": _known(one.sigmas),
        "datasheet_frac": _known(share),
        "profile_ratio": _known(figure.profile_ratio),
        "reason": one.reason,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _median(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _natural(name: str) -> tuple[Any, ...]:
    """``node10`` after ``node9``."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part
    )
