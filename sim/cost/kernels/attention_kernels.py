"""Fused attention kernels that a framework calls although its device has faster ones.

Like a car that still runs on last year's tyres: it gets there, only slower than the make's best lap.
"""

from __future__ import annotations

KERNELS = ("newest", "flash-2", "flash-1")
"""``newest`` is what the profile was measured with: cuDNN or FlashAttention-3 on Hopper, cuDNN on Blackwell and
FlashAttention-2 on Ampere. ``flash-1`` is the first FlashAttention written in Triton, the one that took biases."""
FLASH_1_OVER_FLASH_2 = 1.8
"""Middle (geometric) of the 1.3 to 2.5 that FlashAttention-2 is faster (Dao 2023, arXiv 2307.08691, section 4.1)."""
FLASH_2_OVER_NEWEST = {"hopper": 1.73, "blackwell": 1.73}
"""Middle of the 1.5 to 2.0 that FlashAttention-3 is faster on H100 (Shah et al. 2024, arXiv 2407.08608, abstract); a
kernel of Ampere's instructions is taken to lose as much on Blackwell (assumed)."""


def slowdown(kernel: str, generation: str) -> float:
    """Time of ``kernel`` on a ``generation`` over that of the newest kernel there.

    Raises:
        ValueError: unknown kernel; the message lists the known ones.
    """
    if kernel not in KERNELS:
        raise ValueError(f"attention kernel {kernel!r} is not one of {', '.join(KERNELS)}")
    if kernel == "newest":
        return 1.0
    older = FLASH_2_OVER_NEWEST.get(generation, 1.0)
    return older * (FLASH_1_OVER_FLASH_2 if kernel == "flash-1" else 1.0)
