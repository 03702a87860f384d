"""Scheduling policies: one small rule each, with its source; ``menu`` has them by name."""
