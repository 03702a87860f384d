"""The books of one long job: every second of it under exactly one heading.

Like a cash book: a stretch of work is entered when it ends, and struck out again if what it rested on is lost.
"""

from __future__ import annotations

from sim.cluster.recovery import Recovery

PARTS = ("productive", "slowed", "checkpoint", "lost", "undetected", "restart", "waiting")
"""Causes of a job's time: work that lasted, at full speed; the rest of its time, because fewer or slow nodes worked;
writes; work done again; the job hung or computed nonsense and nobody knew; swap, requeue, loading and warm-up; no
devices."""


class JobBooks:
    """Time by cause, and what of the work stands on which bookmark.

    Work is counted in seconds at full speed: mean speed of a stretch times its useful time.
    """

    __slots__ = ("_computed_s", "_done_s", "_fragile_s", "parts_s", "phase_s", "recovery", "work_left_s")

    def __init__(self, recovery: Recovery, work_s: float) -> None:
        self.recovery, self.work_left_s = recovery, work_s
        self.parts_s = dict.fromkeys(PARTS, 0.0)
        self.phase_s = 0.0
        """Useful time since the last durable bookmark that a restart from memory goes on from."""
        self._fragile_s = (0.0, 0.0)  # of it: booked as productive, booked as slowed
        self._computed_s = self._done_s = 0.0

    @property
    def speed_frac(self) -> float:
        """Mean speed while computing, lost work included."""
        return self._done_s / self._computed_s if self._computed_s else 1.0

    def stretch(self, ran_s: float, speed_frac: float, keep: str, *, last: bool = False) -> None:
        """Enter a stretch that was cut after ``ran_s``.

        ``keep``: ``durable`` or ``memory`` = what stands on bookmarks of that kind, ``all`` = it was a planned stop or
        the end. Slow spells are spread evenly over the stretch.
        """
        got = self.recovery.progress(ran_s, phase_s=self.phase_s)
        kept = {"all": got.useful_s, "memory": 0.0, "durable": got.durable_s}[keep]
        if keep == "memory":
            kept = self.recovery.in_memory_s(ran_s, phase_s=self.phase_s)
        self.parts_s["checkpoint"] += got.checkpoint_s
        self.parts_s["lost"] += got.useful_s - kept
        done = self.work_left_s if last else min(speed_frac * kept, self.work_left_s)
        self.parts_s["productive"] += done
        self.parts_s["slowed"] += kept - done
        self._computed_s += got.useful_s
        self._done_s += speed_frac * got.useful_s
        self.work_left_s -= done
        saved = self.recovery.bookmarks(ran_s, phase_s=self.phase_s) > 0
        if keep == "memory":
            fresh = kept - got.durable_s
            fast, slow = (0.0, 0.0) if saved else self._fragile_s
            self._fragile_s = fast + speed_frac * fresh, slow + (1 - speed_frac) * fresh
            self.phase_s = fresh if saved else self.phase_s + fresh
        elif keep == "all" or saved:
            self._fragile_s, self.phase_s = (0.0, 0.0), 0.0
        else:
            self.lose_fragile()

    def lose_fragile(self) -> None:
        """Work that only memory held has gone with it."""
        fast, slow = self._fragile_s
        self.parts_s["productive"] -= fast
        self.parts_s["slowed"] -= slow
        self.parts_s["lost"] += fast + slow
        self.work_left_s += fast
        self._fragile_s, self.phase_s = (0.0, 0.0), 0.0
