"""``python -m benchmarks.app``: how quickly the app answers, keeps its memory, and keeps visitors apart.

Figures, each beside what it should be: first answer of a fresh visitor (3 s), server time of a closed-form change
(300 ms), memory after many interactions (steady: no more than a tenth above what it was after the first fifth), twenty
visitors at once (no error, each sees its own scenario). The browser parts need Playwright and Debian's Chromium.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INTERACTIONS, VISITORS = 500, 20
NODES = "gpt3-175b-1024-a100:cluster.pools.0.nodes"
ALLOWED = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Nodes that the scenario's plan divides."""


def resident_bytes() -> int:
    """Of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def interactions(count: int) -> None:
    """Changes of one field in Streamlit's own harness: server time, and memory before and after."""
    from streamlit.testing.v1 import AppTest

    page = AppTest.from_file(str(ROOT / "app" / "web" / "main.py"), default_timeout=120).run()
    times, early = [], 0
    for number in range(count):
        # an edge that differs every time, so that no answer is remembered
        page.sidebar.number_input(key=NODES).set_value(ALLOWED[number % len(ALLOWED)])
        page.sidebar.number_input(key="gpt3-175b-1024-a100:training.global_batch").set_value(
            1536 * (1 + number // 10 % 5)
        )
        started = time.perf_counter()
        page.run()
        times.append(time.perf_counter() - started)
        if page.exception:
            raise SystemExit(page.exception[0].message)
        if number == count // 5:
            early = resident_bytes()
    middle, slow = statistics.median(times), sorted(times)[int(0.95 * len(times))]
    print(
        f"closed-form change: median {1e3 * middle:.0f} ms, 95 % {1e3 * slow:.0f} ms (target 300 ms)",
        flush=True,
    )
    now = resident_bytes()
    print(
        f"memory after {count}: {now / 2**20:.0f} MiB, {now / early:.2f} x that after {count // 5} (target 1.10)"
    )


@contextmanager
def server() -> Iterator[str]:
    """The address of a server of our own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"import sys; sys.argv = ['rackcast', 'app', '--port', '{port}']; from app.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(10)


def visitors(count: int) -> None:
    """First answers in a real browser, and many visitors at once, each with a batch of its own."""
    from playwright.sync_api import sync_playwright

    with server() as address, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for words in ("cold server", "warm server"):
            page = browser.new_context().new_page()
            begun = time.perf_counter()
            page.goto(address)
            page.get_by_test_id("stMetricValue").first.wait_for(timeout=120_000)
            print(f"first answer, {words}: {time.perf_counter() - begun:.1f} s (target 3 s)", flush=True)
        pages = [browser.new_context().new_page() for _ in range(count)]
        begun = time.perf_counter()
        for number, page in enumerate(pages):
            batch = 1536 * (number + 2)
            page.goto(f"{address}?training.global_batch={batch}", wait_until="commit")
        wrong = 0
        for number, page in enumerate(pages):
            page.get_by_test_id("stMetricValue").first.wait_for(timeout=240_000)
            own = f"training.global_batch={1536 * (number + 2)}"
            page.get_by_test_id("stCode").get_by_text(own).first.wait_for(timeout=240_000)
            wrong += page.get_by_test_id("stException").count()
        print(
            f"{count} visitors at once: {wrong} errors, each its own scenario, {time.perf_counter() - begun:.0f} s"
        )
        browser.close()


def main() -> int:
    """All of them."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else INTERACTIONS
    interactions(count)
    if shutil.which("chromium") is None:
        print("no chromium: the browser parts are left out")
        return 0
    visitors(VISITORS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
