"""Whose measurement file it is: two runs that are told to write one file write two, and neither loses a reading.

Like field books with a name on the cover: who finds a stranger's takes the next one from the shelf.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from calibrate.measurements import MeasurementsError, load
from calibrate.resume import HOST, host_key, is_alive


@dataclass(frozen=True, slots=True)
class Claim:
    """The file that one run may write, until it is released."""

    path: Path
    why: str
    """Why it is not the file that was asked for; empty where it is."""

    def release(self) -> None:
        """The run is over: others may take the file up, or take the next one beside it."""
        mark = _mark(self.path)
        with contextlib.suppress(OSError):
            if mark.read_text(encoding="utf-8") == _me():
                mark.unlink()


def claim(out: Path) -> Claim:
    """``out``, or ``out.2``, ``out.3``, ... (before the ending) where it is another run's or another host's.

    The mark beside the file is made in one step that only one of many hosts on a shared file system can win. A mark
    that a dead process of this host left is taken over; whether another host's run lives cannot be known from here.

    Raises:
        OSError: the folder cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    why = ""
    for number in itertools.count(1):
        path = out if number == 1 else out.with_name(f"{out.stem}.{number}{out.suffix}")
        whose = _taken_by(path)
        if not whose:
            return Claim(path, why)
        why = why or f"{out} is left alone: {whose}"
    raise AssertionError("itertools.count ends nowhere")


def _taken_by(path: Path) -> str:
    """Whose the file is; empty where it is now this process's."""
    mark = _mark(path)
    mine = mark.with_name(f"{mark.name}.{host_key()}.{os.getpid()}.draft")
    mine.write_text(_me(), encoding="utf-8")
    try:
        os.link(mine, mark)  # with its content, or not at all
    except FileExistsError:
        whose = _holder(mark)
        if whose:
            return whose
        mine.replace(mark)
    except OSError:  # a file system without hard links
        try:
            with mark.open("x", encoding="utf-8") as file:
                file.write(_me())
        except FileExistsError:
            whose = _holder(mark)
            if whose:
                return whose
            mine.replace(mark)
    finally:
        mine.unlink(missing_ok=True)
    with contextlib.suppress(MeasurementsError):
        if path.exists() and load(path).settings.get(HOST, host_key()) != host_key():
            mark.unlink(missing_ok=True)
            return "it holds what another host measured"
    return ""


def _holder(mark: Path) -> str:
    """Who holds a mark, in words; empty where nobody of this host does any more."""
    told = mark.read_text(encoding="utf-8").split() if mark.exists() else []
    if len(told) != 3:
        return f"another run is about to write it ({mark})" if told else ""
    where, process, started = told
    if where != _where():
        return f"a run on another host writes it (if that one is dead, delete {mark})"
    if int(process) == os.getpid() or not is_alive(int(process)) or _started(int(process)) != started:
        return ""
    return f"process {process} on this host writes it"


def _mark(path: Path) -> Path:
    return path.with_name(f".{path.name}.claim")


def _me() -> str:
    return f"{_where()} {os.getpid()} {_started(os.getpid())}"


def _where() -> str:
    """This host and, in a container, its own numbering of processes."""
    try:
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        space = "-"
    return f"{host_key()}/{space}"


def _started(process: int) -> str:
    """When a process began, in clock ticks since the host did: numbers of processes are used again."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return "-"
