"""What breaks: the only words in which failures reach the engine.

A stream of outages is like a weather record: it exists before the day is played, so two policies can be compared under
the same weather.
"""

from __future__ import annotations

from typing import NamedTuple

PLANNED = ("maintenance", "slow")
"""Causes known beforehand: jobs save themselves first."""


class Outage(NamedTuple):
    """Nodes that stop working together, for one cause."""

    at_s: float
    nodes: tuple[int, ...]
    """Numbers of the nodes that are lost (one for a GPU fault, all of a rack for its switch)."""
    cause: str
    """``node``, ``gpu``, ``nic``, ``switch``, ``rack``, ``storage``, ``silent``, ``maintenance``, ``slow``."""
    detect_s: float
    """From the fault until anybody knows: jobs there hold their devices and get nothing done."""
    down_s: float
    """From detection until the nodes can be used again: reboot, repair or replacement."""
