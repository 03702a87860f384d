"""Named streams of chance: every purpose has its own dice, which nobody else throws.

The dice depend on the seed and on their name alone, not on who asks first or in which process. So the weather of
failures is the same under two policies (common random numbers), and replications give the same bytes on any number of
workers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Streams:
    """A place in the tree of streams; children are named."""

    seed: int
    names: tuple[str, ...] = ()

    def child(self, *names: str | int) -> Streams:
        """The branch of that name (numbers, such as a replication's, count as names)."""
        return Streams(self.seed, (*self.names, *map(str, names)))

    def generator(self, *names: str | int) -> np.random.Generator:
        """A fresh generator at its start: asking twice gives the same numbers twice.

        numpy's ``SeedSequence`` (O'Neill's seed_seq_fe) over the seed and 128 bits of BLAKE2b of the name, which does
        not change between processes or versions of Python as ``hash`` does.
        """
        path = "\x1f".join((*self.names, *map(str, names)))
        digest = hashlib.blake2b(path.encode(), digest_size=16).digest()
        words = tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=words))
