"""Capacity planning: what to get, when, at what cost, and how sure one can be."""
