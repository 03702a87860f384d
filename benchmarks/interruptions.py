"""``python -m benchmarks.interruptions``: real runs killed at random moments, taken up, and compared point by point.

Each run is killed again and again until one gets through: whatever was in the file before a kill must stand after it,
to the byte, no point may be there twice, and parts of a fixed grid must end with the points of a run left alone.
Also a run of several ranks over Gloo of which one is killed: the others must end, name it and keep their rows.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from calibrate.microbenchmarks import layer, optimizer

KILLS, RANK_RUNS, RANKS, BUDGET = 20, 3, 3, "8s"
PARTS = {
    "matmul": "gemm",
    "memory": "memory",
    "layer": "layer",
    "embedding": "embedding",
    "optimizer": "optimizer",
    "launch": "launch",
    "overlap": "overlap",
    "collective": "collectives",
}
"""Part -> its table; whole layers write into ``optimizer``, too."""
OF_LAYERS = layer.OPTIMIZER_MATRICES * optimizer.SIDE**2
"""Parameters of the update that is measured beside whole layers."""
FIXED = ("embedding", "optimizer", "launch", "overlap")
"""Tables whose grid follows from the budget alone, not from what was found out on the way."""
TIMES = ("time_us", "low_us", "high_us", "confidence_frac", "repeats", "calls")
MOST_KILLS = 8
TIMEOUT_S = 120


def tool(out: Path, parts: str, budget: str) -> list[str]:
    """The measuring command."""
    return [sys.executable, "-m", "calibrate", "run", "--only", parts, "--budget", budget, "--out", str(out)]


def read(path: Path) -> dict[str, Any]:
    """The file as it stands; what is there must always be whole."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def points(document: dict[str, Any], table: str, *, own: bool = False) -> list[str]:
    """What was measured in a table, without how long it took; ``own`` = by the part of that table alone."""
    rows = document.get("tables", {}).get(table, [])
    if own and table == "optimizer":
        rows = [row for row in rows if row["parameters"] != OF_LAYERS]
    return [json.dumps({name: cell for name, cell in row.items() if name not in TIMES}) for row in rows]


def lost(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Tables of which a row that was there before has changed or gone."""
    tables = after.get("tables", {})
    return [
        name
        for name, rows in before.get("tables", {}).items()
        if any(row not in tables.get(name, []) for row in rows)
    ]


def killed_and_taken_up(seed: int, alone: dict[str, Any]) -> tuple[int, str]:
    """One run killed at random moments and taken up until it gets through; kills, and "" or what went wrong."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "m.json"
        command = tool(out, ",".join(PARTS), BUDGET)
        for kills in range(MOST_KILLS + 1):
            before = read(out)
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            try:
                process.wait(draw.uniform(2.0, 10.0) if kills < MOST_KILLS else TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
            code, after = process.wait(), read(out)
            if not before.get("complete") and (gone := lost(before, after)):
                return kills, f"seed {seed}: rows of {gone} changed or gone after kill {kills}"
            if code >= 0:
                break
        if code != 0 or not after.get("complete"):
            return kills, f"seed {seed}: the last run ended with code {code}"
        if sorted(after["settings"]["parts_done"]) != sorted(PARTS):
            return kills, f"seed {seed}: parts {after['settings']['parts_done']}"
        for table in PARTS.values():
            found = points(after, table)
            if len(found) != len(set(found)):
                return kills, f"seed {seed}: a point of {table} is there twice"
            if table in FIXED and set(points(after, table, own=True)) != set(points(alone, table, own=True)):
                return kills, f"seed {seed}: points of {table} are not those of a run left alone"
        left = [path.name for path in Path(folder).iterdir() if path.name.startswith(".")]
        return kills, f"seed {seed}: drafts left: {left}" if left else ""


def one_rank_killed(seed: int) -> str:
    """Ranks over Gloo, the last one killed at a random moment; "" or what went wrong."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        common = {"WORLD_SIZE": str(RANKS), "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        common |= {"MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        ranks = []
        for rank in range(RANKS):
            command = tool(Path(folder) / f"{rank}.json", "launch,collective", "12s")
            told = (Path(folder) / f"{rank}.err").open("w")
            ranks.append(
                subprocess.Popen(command, stderr=told, env={**os.environ, **common, "RANK": str(rank)})
            )
            told.close()
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end and not read(Path(folder) / "0.json").get("tables", {}).get(
            "collectives"
        ):
            time.sleep(0.2)
        time.sleep(random.Random(seed).uniform(0.0, 4.0))
        ranks[-1].kill()
        try:
            for process in ranks:
                process.wait(max(end - time.monotonic(), 1.0))
        except subprocess.TimeoutExpired:
            return f"seed {seed}: a rank hangs"
        finally:
            for process in ranks:
                process.kill()
        told = (Path(folder) / "0.err").read_text(encoding="utf-8")
        kept = read(Path(folder) / "0.json")
        if f"rank {RANKS - 1} on " not in told:
            return f"seed {seed}: the fallen rank is not named: {told.splitlines()[-1:]}"
        if ranks[0].returncode != 1 or not kept["tables"]["collectives"] or kept["complete"]:
            return f"seed {seed}: code {ranks[0].returncode}, {len(kept['tables']['collectives'])} rows kept"
        return ""


def main(kills: int = KILLS, rank_runs: int = RANK_RUNS) -> int:
    """Print what went wrong; 1 if anything did."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "m.json"
        subprocess.run(
            tool(out, ",".join(PARTS), BUDGET), stderr=subprocess.DEVNULL, timeout=TIMEOUT_S, check=True
        )
        alone = read(out)
    done, runs, faults = 0, 0, []
    while done < kills:
        killed, fault = killed_and_taken_up(runs, alone)
        done, runs = done + max(killed, 1 if fault else 0), runs + 1
        print(f"run {runs}: {killed} kills", fault, flush=True)
        faults += [fault] if fault else []
    faults += [fault for seed in range(rank_runs) if (fault := one_rank_killed(seed))]
    print(
        "\n".join(faults) or "all well",
        f"({done} kills in {runs} runs, {rank_runs} of {RANKS} ranks with one killed)",
    )
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
