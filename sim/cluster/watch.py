"""A watchdog for code that is not ours: a policy that thinks for ever is woken with an exception.

One thread looks at the clock a few times a second; the guarded code pays for two assignments under a lock. No signals
are used, so it works in any thread and any worker process. Code that stays inside one call written in C (a sleep, a
large matrix product) is reached when that call returns.
"""

from __future__ import annotations

import ctypes
import threading
import time


class OutOfTime(BaseException):
    """Raised inside the guarded code. No ``Exception``: a policy's own ``except Exception`` must not swallow it."""


class Watch:
    """Guards the thread that makes it; ``stop`` ends the watcher."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._thread_id = threading.get_ident()
        self._lock = threading.Lock()
        self._since_s: float | None = None
        self._sent = False
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._look, name="policy watch", daemon=True)
        self._watcher.start()

    def begin(self) -> None:
        """Guarded code starts."""
        with self._lock:
            self._since_s = time.monotonic()

    def end(self) -> None:
        """Guarded code is over. An exception that is on its way is waited for, so it strikes nobody else."""
        with self._lock:
            self._since_s = None
            sent, self._sent = self._sent, False
        deadline_s = time.monotonic() + 1.0
        while sent and time.monotonic() < deadline_s:
            pass  # it is raised here, between two instructions of this loop

    def stop(self) -> None:
        """Nothing is guarded any more."""
        self._over.set()
        self._watcher.join()

    def _look(self) -> None:
        while not self._over.wait(min(self._limit_s / 4, 0.25)):
            with self._lock:
                since_s = self._since_s
                if since_s is not None and not self._sent and time.monotonic() - since_s > self._limit_s:
                    self._sent = True
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self._thread_id), ctypes.py_object(OutOfTime)
                    )
