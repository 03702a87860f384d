"""Python's search for cyclic garbage, put off while an engine plays.

Like not sweeping the floor while the flour is still being sieved: a step's program or a month's log is a million tuples
in which nothing points in circles, and every search would look at all of them again.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """No search for cyclic garbage inside; as it was before afterwards, whatever happens."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
