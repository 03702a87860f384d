"""What the matrix units keep of their burst rate when a step follows a step: the power limit takes the rest.

Like a sprinter asked to run a marathon: most kernel tables are timed in milliseconds on a cool chip at its boost clock,
training runs for weeks at the board's power limit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Anchor:
    """Sustained over burst rate of the same products on one accelerator, with its power limit and bf16 peak."""

    frac: float
    tdp_w: float
    flop_per_s: float


ANCHORS = {
    "ampere": Anchor(0.92, 400.0, 312e12),
    "hopper": Anchor(0.85, 700.0, 989e12),
    "blackwell": Anchor(0.75, 1000.0, 2250e12),
}
"""By generation: products timed in a long loop, or inside whole layers, over the same shapes timed for milliseconds, on
A100 SXM (0.87 to 0.97), H100 SXM (0.80 to 0.85, the upper end taken) and B200 (0.74 to 0.76)."""
UNANCHORED_FRAC = 0.84
"""Assumed of a generation that nobody timed both ways: the middle (geometric mean) of those that somebody did."""
POWER_EXPONENT = 2.0
"""Power grows as the clock to this power: 1 at a fixed voltage, 3 where voltage falls with the clock. Assumed between;
published runs on B200, GB200 and GB300 then want nearly the same kernel factor."""
SUSTAINED_ENGINES = ("transformer-engine", "torch eager")
"""Backends whose tables were timed in a long loop (the second by ``rackcast calibrate``): no correction is due."""


def sustained_frac(generation: str, tdp_w: float | None, flop_per_s: float) -> float:
    """Share of the burst rate that an accelerator keeps: the clock at which its matrix units meet the power limit.

    The power that a burst would take grows with the peak rate, at the energy a FLOP of the generation's anchor.

    Args:
        tdp_w: power limit; None = in proportion to the anchor's.
        flop_per_s: dense bf16 peak.
    """
    anchor = ANCHORS.get(generation)
    if anchor is None:
        return UNANCHORED_FRAC
    if flop_per_s <= 0:
        return 1.0
    if tdp_w is None:
        return anchor.frac
    wanted_w = anchor.tdp_w / anchor.frac**POWER_EXPONENT * flop_per_s / anchor.flop_per_s
    return float(min((tdp_w / wanted_w) ** (1 / POWER_EXPONENT), 1.0))
