"""Fused attention kernels that a framework calls although its device has faster ones.

Like a car that still runs on last year's tyres: it gets there, only slower than the make's best lap.
"""

from __future__ import annotations

KERNELS = ("newest", "flash-2", "flash-1")
"""``newest`` is what the profile was measured with: cuDNN or FlashAttention-3 on Hopper, cuDNN on Blackwell and
FlashAttention-2 on Ampere. ``flash-1`` is the first FlashAttention written in Triton, the one that took biases."""
FLASH_1_OVER_FLASH_2 = {"fwd": 1.4, "bwd": 2.0}
"""FlashAttention-2 over the first one in Triton: 1.3 to 1.5 times as fast forward, about twice backward (Dao 2023,
arXiv 2307.08691, section 4.1)."""
FLASH_2_OVER_NEWEST = {"fwd": 1.73, "bwd": 1.62}
"""FlashAttention-3 over FlashAttention-2 on H100: 1.5 to 2.0 times as fast forward, 1.5 to 1.75 backward (Shah et al.
2024, arXiv 2407.08608, section 4.1); middles, geometric."""
NEWER_SINCE = ("hopper", "blackwell")
"""Generations with a kernel newer than FlashAttention-2, whose instructions are Ampere's; that it loses as much on
Blackwell as on Hopper is assumed."""


def slowdown(kernel: str, generation: str, phase: str) -> float:
    """Time of ``kernel`` on a ``generation`` over that of the newest kernel there; ``phase`` is ``fwd`` or ``bwd``.

    Raises:
        ValueError: unknown kernel; the message lists the known ones.
    """
    if kernel not in KERNELS:
        raise ValueError(f"attention kernel {kernel!r} is not one of {', '.join(KERNELS)}")
    if kernel == "newest":
        return 1.0
    older = FLASH_2_OVER_NEWEST[phase] if generation in NEWER_SINCE else 1.0
    return older * (FLASH_1_OVER_FLASH_2[phase] if kernel == "flash-1" else 1.0)
