"""Which roof an op lies under: the matrix units, the memory, or the network.

Roofline (Williams, Waterman and Patterson, CACM 52(4), 2009): the bound of an op is FLOP over peak or bytes over
bandwidth, whichever is longer; the longer one names the roof. Whether it is the FLOP is seen by taking the memory away:
on a device of boundless bandwidth such an op's bound stays what it was.
"""

from __future__ import annotations

from dataclasses import replace

from sim.cost.estimate import Estimate
from sim.spec.ops import Attention, Conv, Gemm, Message, Op
from sim.training.pricing import Pricer

BOUNDLESS = 1e6
"""Times the bandwidth: enough that no op is bound by it."""
SAME_FRAC = 0.999


def roof(op: Op, found: Estimate, pricer: Pricer) -> str:
    """``matrix units``, ``memory`` or ``messages``, for an op that ``pricer`` priced as ``found``."""
    if isinstance(op, Message):
        return "messages"
    if not isinstance(op, Gemm | Attention | Conv):
        return "memory"
    device = pricer.device
    fast = replace(device, memory_bytes_per_s=BOUNDLESS * device.memory_bytes_per_s)
    alone = replace(pricer, device=fast, known={}).price(op)
    return (
        "matrix units" if float(alone.lower_bound_s) >= SAME_FRAC * float(found.lower_bound_s) else "memory"
    )
