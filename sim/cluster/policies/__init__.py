"""Scheduling policies: one small rule each, with its source.

``by_name`` is the menu for scenarios and command lines.
"""
