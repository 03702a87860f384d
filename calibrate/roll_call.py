"""Who is still there: ranks of a run over many nodes call their names once a second, and the silent one is named.

A collective that loses a partner ends with "connection closed" on all ranks alike; the roll kept beside it, in the
store that the ranks met at, tells which of them fell and on which host.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

BEAT_S = 1.0
PATIENCE_S = 3.0
"""A rank that has not called for so long is gone: three beats."""
HANG_S = 30.0
"""Once a rank has been silent for so long, the others are not waiting for it but hanging: they end."""
JOIN_S = 120.0
LEFT = "left"


@dataclass(slots=True)
class RollCall:
    """One rank's place in the roll; ``store`` has ``set(key, text)`` and ``get(key)``, and ``check([key])``."""

    store: Any
    rank: int
    ranks: int
    host: str = field(default_factory=platform.node)
    beat_s: float = BEAT_S
    patience_s: float = PATIENCE_S
    hang_s: float = HANG_S
    end: Callable[[str], None] = field(default_factory=lambda: _end)
    """Told of a silent rank after ``hang_s``; ends the process, which may be blocked inside a collective."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _beats: int = 0

    def start(self) -> None:
        """Call now, and go on calling from a thread until :meth:`leave`."""
        self._call()
        threading.Thread(target=self._go_on, name="roll call", daemon=True).start()

    def leave(self) -> None:
        """Say that this rank goes of its own will, so that nobody counts it among the fallen."""
        self._stop.set()
        with contextlib.suppress(RuntimeError):
            self.store.set(self._key(self.rank), f"{LEFT} {self.host}")

    def absent(self) -> dict[int, str]:
        """Host by rank of those that neither call nor have left; waits for ``patience_s``.

        Raises:
            RuntimeError: the store itself is gone, with the host that kept it.
        """
        before = self._heard()
        time.sleep(self.patience_s)
        after = self._heard()
        silent = {}
        for rank in range(self.ranks):
            text = after.get(rank, "")
            if rank != self.rank and not text.startswith(LEFT) and text == before.get(rank, ""):
                silent[rank] = text.partition(" ")[2] or "host unknown: it never called"
        return silent

    def _heard(self) -> dict[int, str]:
        keys = {rank: self._key(rank) for rank in range(self.ranks)}
        return {rank: self._text(key) for rank, key in keys.items() if self.store.check([key])}

    def _text(self, key: str) -> str:
        value = self.store.get(key)
        return value.decode() if isinstance(value, bytes) else str(value)

    def _call(self) -> None:
        self._beats += 1
        self.store.set(self._key(self.rank), f"{self._beats} {self.host}")

    def _go_on(self) -> None:
        try:
            self._watch()
        except RuntimeError:  # the store is gone with its host
            if not self._stop.wait(self.hang_s):
                self.end(f"error: collective: the host that kept the roll is gone for {self.hang_s:.0f} s")

    def _watch(self) -> None:
        """Call and listen until this rank leaves."""
        changed: dict[int, tuple[str, float]] = {}
        while not self._stop.wait(self.beat_s):
            self._call()
            now, heard = time.monotonic(), self._heard()
            changed |= {r: (t, now) for r, t in heard.items() if r not in changed or changed[r][0] != t}
            silent = {
                rank: text.partition(" ")[2]
                for rank, (text, since) in changed.items()
                if rank != self.rank and not text.startswith(LEFT) and now - since > self.hang_s
            }
            if silent and not self._stop.is_set():
                named = ", ".join(f"rank {rank} on {host}" for rank, host in silent.items())
                self.end(f"error: collective: no word from {named} for {self.hang_s:.0f} s: the others hang")

    @staticmethod
    def _key(rank: int) -> str:
        return f"rackcast roll call/{rank}"


def join(torch: Any, variables: Mapping[str, str] = os.environ) -> RollCall | None:
    """Take part in the roll of a launched run; None where the ranks have no store to meet at.

    Uses the store at MASTER_ADDR:MASTER_PORT: the launcher's own under torchrun, else rank 0 keeps it (and the
    process group that is made later in the same process shares it).
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= variables.keys():
        return None
    rank, ranks = int(variables["RANK"]), int(variables["WORLD_SIZE"])
    keeper = rank == 0 and variables.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        store = torch.distributed.TCPStore(
            variables["MASTER_ADDR"],
            int(variables["MASTER_PORT"]),
            None,
            keeper,
            datetime.timedelta(seconds=JOIN_S),
            multi_tenant=True,
        )
        roll = RollCall(store, rank, ranks)
        roll.start()
    except (RuntimeError, ValueError):
        return None
    return roll


def _end(text: str) -> None:
    sys.stderr.write(text + "; what was measured is kept\n")
    sys.stderr.flush()
    os._exit(1)  # the main thread sits in a collective that no signal reaches


def account(roll: RollCall | None) -> str:
    """One clause naming the ranks that fell, for the end of an error message; "" where none is known to have."""
    if roll is None:
        return ""
    try:
        fallen = roll.absent()
    except RuntimeError:
        return "; the host that kept the roll is gone too"
    named = ", ".join(f"rank {rank} on {host}" for rank, host in fallen.items())
    return f"; fallen: {named}" if named else ""
