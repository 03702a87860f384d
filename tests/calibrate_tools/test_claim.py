"""Two nodes, or two runs of one node, given the same ``--out``: nothing is corrupt and nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from calibrate import resume
from calibrate.claim import claimed
from calibrate.measurements import Measurements, load, save

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks and SIGKILL are POSIX")

EMPTY = Measurements({"device": "Acme"}, {resume.HOST: resume.host_key()})
NODE = """
import os, platform, sys, time
from dataclasses import replace
from pathlib import Path
from calibrate import resume
from calibrate.claim import claimed
from calibrate.measurements import Measurements, load, save

def no_link(*ends):
    raise PermissionError("Operation not permitted")

platform.node = lambda: sys.argv[2]
if sys.argv[4] == "without links":
    os.link = no_link
rows, wanted = int(sys.argv[3]), Path(sys.argv[1])
empty = Measurements({"device": "Acme"}, {resume.HOST: resume.host_key(), "seed": 0})
row = {"gpu": "Acme", "mode": sys.argv[2], "engine": "t", "time_us": 1.0, "low_us": 1.0, "high_us": 1.0}
row |= {"repeats": 1, "source": "s"}
with claimed(wanted, empty) as out:
    have = list(load(out).tables.get("launch", ()))
    while len(have) < rows:
        have.append({**row, "number": len(have)})
        save(replace(empty, tables={"launch": have}, complete=len(have) == rows), out)
"""
ROWS = 120


def node(out: Path, host: str, links: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", NODE, str(out), host, str(ROWS), links])


def files(folder: Path) -> dict[str, list[int]]:
    """Numbers of the rows by the node that wrote them; each file is one node's alone."""
    found: dict[str, list[int]] = {}
    for path in folder.glob("*.json"):
        rows = load(path).tables["launch"]
        (host,) = {row["mode"] for row in rows}
        assert host not in found, "one file a node"
        found[host] = [row["number"] for row in rows]
    return found


@pytest.mark.parametrize("links", ["with links", "without links"])
def test_two_nodes_given_one_file_lose_nothing_though_one_is_killed(tmp_path: Path, links: str) -> None:
    """Both begin at once and append; one dies by SIGKILL in the middle and is started again by the same command."""
    out = tmp_path / "node.json"
    for killed in ("a", "b"):
        both = {host: node(out, host, links) for host in "ab"}
        end = time.monotonic() + 20
        while time.monotonic() < end and not any(
            path.stat().st_size and len(load(path).tables.get("launch", ())) > ROWS // 4
            for path in tmp_path.glob("*.json")
        ):
            time.sleep(0.005)
        both[killed].send_signal(signal.SIGKILL)
        both[killed].wait()
        again = node(out, killed, links)
        assert [again.wait(30), *(p.wait(30) for host, p in both.items() if host != killed)] == [0, 0]
        assert files(tmp_path) == {"a": list(range(ROWS)), "b": list(range(ROWS))}
        assert all(load(path).complete for path in tmp_path.glob("*.json"))
        assert len(list(tmp_path.iterdir())) <= 3, "at most the killed one's draft beside the two"
        for path in tmp_path.iterdir():
            path.unlink()


def test_another_hosts_file_is_let_be_and_ones_own_is_written_again(tmp_path: Path) -> None:
    wanted = tmp_path / "node.json"
    other = replace(EMPTY, settings={resume.HOST: "elsewhere"}, complete=True)
    save(other, wanted)
    before = wanted.read_bytes()
    for _ in range(2):
        with claimed(wanted, EMPTY) as out:
            assert out.name == f"node-{resume.host_key()}.json"
    assert wanted.read_bytes() == before
    for nothing in ("{", ""):
        wanted.write_text(nothing)
        with claimed(wanted, EMPTY) as out:
            assert out == wanted, "what is no measurement file is nobody's"


def test_two_runs_of_one_host_at_once_have_a_file_each(tmp_path: Path) -> None:
    wanted = tmp_path / "node.json"
    with claimed(wanted, EMPTY) as first, claimed(wanted, EMPTY) as second, claimed(wanted, EMPTY) as third:
        assert len({first, second, third}) == 3
        assert first == wanted
    with claimed(wanted, EMPTY) as again:
        assert again == wanted, "free when its writer has left"
    assert json.loads(wanted.read_text())["settings"][resume.HOST] == resume.host_key()
