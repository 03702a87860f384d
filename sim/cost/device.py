"""Moved to ``sim.spec.device``."""

from sim.spec.device import BYTES_PER_VALUE, Device

__all__ = ["BYTES_PER_VALUE", "Device"]
