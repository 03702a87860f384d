"""Who may write a measurement file: a towel on the deck chair, which later guests see and lay theirs beside.

Nodes that share a folder and are given the same ``--out`` must not replace each other's figures. A file belongs to the
host that began it; another host, or another run on the same host, measures into a file of its own beside it.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calibrate.measurements import Measurements, MeasurementsError, load, write_new
from calibrate.resume import HOST, host_key

FILLED_S = 2.0
"""A file that stays empty for so long was left by somebody who died, not begun by another host."""


@contextmanager
def claimed(wanted: Path, first: Measurements) -> Iterator[Path]:
    """The file that this run may write until it leaves: ``wanted``, or else one beside it named after the host.

    Between hosts the exclusive creation of the file decides (a hard link, which NFS makes atomic, too); between
    processes of one host a lock that the kernel lets go of when its holder dies, however it dies.

    Args:
        wanted: the path that was asked for.
        first: written where no file is there yet, so that the others see whose it is.

    Raises:
        OSError: the folder cannot be written to.
    """
    for path in candidates(wanted):
        lock = _lock(path)
        if lock is False:
            continue
        try:
            if _ours(path, first):
                yield path
                return
        finally:
            if lock is not None:
                os.close(lock)


def candidates(wanted: Path) -> Iterator[Path]:
    """``node.json``, then ``node-1a2b3c4d.json`` (the host's key), then ``node-1a2b3c4d-2.json`` and so on."""
    yield wanted
    mine = f"{wanted.name.removesuffix('.json')}-{host_key()}"
    yield wanted.with_name(f"{mine}.json")
    for number in itertools.count(2):
        yield wanted.with_name(f"{mine}-{number}.json")


def _ours(path: Path, first: Measurements) -> bool:
    """Whether no other host began the file; created if it is not there."""
    if not path.exists() and write_new(path, first):
        return True
    end = time.monotonic() + FILLED_S
    with contextlib.suppress(FileNotFoundError):  # taken away again: nobody's
        while path.stat().st_size == 0 and time.monotonic() < end:
            time.sleep(0.02)  # another host has just taken the place
    try:
        owner = load(path).settings.get(HOST)
    except MeasurementsError:
        return True  # no measurement file: whoever names it as --out wants it replaced
    return owner in (None, host_key())


def _lock(path: Path) -> Any:
    """A lock of this host on ``path`` (to be closed); False where another process has it, None where there are none."""
    try:
        import fcntl
    except ImportError:  # not POSIX
        return None
    who = hashlib.sha256(f"{_user()} {path.resolve()}".encode()).hexdigest()[:16]
    try:
        lock = os.open(Path(tempfile.gettempdir()) / f"rackcast-{who}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None  # no place for locks: writes are whole all the same
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    except OSError:
        os.close(lock)
        return None
    return lock


def _user() -> str:
    with contextlib.suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return ""
