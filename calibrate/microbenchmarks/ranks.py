"""Ranks as child processes: a starter who sends the runners off, and who notices when one falls.

:func:`spawn` starts them, passes on what they yield, and ends them all whatever happens: a rank that is
killed, crashes, fails or falls silent becomes one :class:`RankError`, never a hang, and none outlives its
parent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from calibrate.measure import Warn

SILENCE_S = 120.0
"""No word from any rank for so long means that they hang; long enough to import torch from a slow disk."""

Body = Callable[[Any, int, str, Warn], Iterator[Any]]
"""``body(plan, rank, meeting, warn)``: what a rank does; a function that a child can import by name."""


class RankError(RuntimeError):
    """A rank died or failed; the message says which, how, and after how many rows."""


def spawn(ranks: int, body: Body, plan: Any, warn: Warn, silence_s: float = SILENCE_S) -> Iterator[Any]:
    """Start ``ranks`` child processes and pass on their rows; whatever happens, none outlives this call.

    Raises:
        RankError: a rank died, failed or fell silent.
    """
    context = multiprocessing.get_context("spawn")  # a forked child of a threaded torch can deadlock
    children: list[Any] = []
    pipes: dict[Connection, int] = {}
    with tempfile.TemporaryDirectory(prefix="rackcast-") as folder:
        try:
            for rank in range(ranks):
                ours, theirs = context.Pipe(duplex=False)
                arguments = (body, plan, rank, f"file://{folder}/meeting", theirs)
                child = context.Process(target=_child, args=arguments, name=f"rank {rank}", daemon=True)
                with _interrupts_ignored():
                    child.start()
                theirs.close()
                children.append(child)
                pipes[ours] = rank
            yield from listen(children, pipes, warn, silence_s)
        finally:
            for child in children:
                child.kill()
            for child in children:
                child.join(10)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Children started here inherit deafness to Ctrl-C: it is meant for the parent, which ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def listen(
    children: Sequence[Any], pipes: Mapping[Connection, int], warn: Warn, silence_s: float = SILENCE_S
) -> Iterator[Any]:
    """Rows from the ranks until all have finished.

    Raises:
        RankError: a rank died, failed, or none has reported for ``silence_s``.
    """
    rows, still = 0, dict(pipes)
    while still:
        ready = wait(list(still), silence_s)
        if not ready:
            raise RankError(f"no rank has reported for {silence_s:.0f} s, after {rows} rows")
        for pipe in (one for one in ready if isinstance(one, Connection)):
            try:
                kind, payload = pipe.recv()
            except (EOFError, OSError):
                rank = still.pop(pipe)
                if _died(children[rank]):
                    raise RankError(_obituary(rank, children[rank], rows)) from None
                continue
            if kind == "row":
                rows += 1
                yield payload
            elif kind == "warning":
                warn(payload)
            else:  # a rank whose partner died reports a broken link: name the dead one, it is the cause
                dead = [rank for rank, child in enumerate(children) if _died(child)]
                raise RankError(_obituary(dead[0], children[dead[0]], rows) if dead else payload)


def _died(child: Any) -> bool:
    child.join(1.0)
    return child.exitcode not in (None, 0)


def _obituary(rank: int, child: Any, rows: int) -> str:
    code = child.exitcode
    how = f"exited with code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            how = f"was killed by {signal.Signals(-code).name}"
    return f"rank {rank} (process {child.pid}) {how} after {rows} rows; the other ranks were ended"


def first_line(fault: BaseException) -> str:
    """The first line of an error, which is the one a person can use."""
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]


def _child(body: Body, plan: Any, rank: int, meeting: str, pipe: Connection) -> None:
    """Body of one spawned rank: rows and warnings go through the pipe, a failure as one sentence."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host name that does not resolve is no obstacle
    try:
        for row in body(plan, rank, meeting, lambda text: pipe.send(("warning", text))):
            pipe.send(("row", row))
    except Exception as fault:  # the boundary of the process: everything becomes one sentence
        with contextlib.suppress(OSError):
            pipe.send(("failed", f"rank {rank} failed: {first_line(fault)}"))
    finally:
        pipe.close()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Nothing is left to do, and taking the interpreter apart under the threads of torch, gloo and autograd, which wait
    # for its lock, now and then unwinds one through C++: "terminate called without an active exception", SIGABRT.
    os._exit(0)


def _leave_with(parent: Any) -> None:
    wait([parent.sentinel])
    os._exit(1)  # nobody is left to report to, and a rank inside a collective cannot be asked to stop
