"""``python -m benchmarks.interruptions``: real runs killed at random moments, taken up, and compared part by part.

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

KILLS, RANK_RUNS, RANKS = 20, 3, 3
PARTS = {"matmul": "gemm", "memory": "memory", "launch": "launch"}
TIMEOUT_S = 120


def tool(out: Path, parts: str, budget: str) -> list[str]:
    """The measuring command."""
    return [sys.executable, "-m", "calibrate", "run", "--only", parts, "--budget", budget, "--out", str(out)]


def read(path: Path) -> dict[str, Any]:
    """The file as it stands; what is there must always be whole."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def killed_and_taken_up(seed: int) -> str:
    """One run killed at a random moment, then run again; "" or what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "m.json"
        command = tool(out, ",".join(PARTS), "6s")
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(random.Random(seed).uniform(0.5, 12.0))
        process.kill()
        process.wait()
        before = read(out)
        again = subprocess.run(command, stderr=subprocess.DEVNULL, timeout=TIMEOUT_S, check=False)
        after = read(out)
        if again.returncode != 0 or not after.get("complete"):
            return f"seed {seed}: the second run ended with code {again.returncode}"
        if sorted(after["settings"]["parts_done"]) != sorted(PARTS) or not all(after["tables"].values()):
            return f"seed {seed}: parts {after['settings']['parts_done']}"
        kept = [] if before.get("complete") else before.get("settings", {}).get("parts_done", [])
        for part in kept:
            if after["tables"][PARTS[part]] != before["tables"][PARTS[part]]:
                return f"seed {seed}: finished part {part} changed"
        left = [path.name for path in Path(folder).iterdir() if path.name.startswith(".")]
        return f"seed {seed}: drafts left: {left}" if left else ""


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
    faults = [fault for seed in range(kills) if (fault := killed_and_taken_up(seed))]
    faults += [fault for seed in range(rank_runs) if (fault := one_rank_killed(seed))]
    print(
        "\n".join(faults)
        or f"{kills} runs killed and taken up, {rank_runs} of {RANKS} ranks with one killed: all well"
    )
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
