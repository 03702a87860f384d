"""Pure cost functions: numbers in, seconds (or bytes, watts) out.

A cost function is like the table on a wall chart: no memory, no hidden state, and the same answer for a single
kernel or for an array of a million plans. Each formula names its source.
"""
