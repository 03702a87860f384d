"""``python -m benchmarks.app``: how quickly the app answers, keeps its memory, and keeps visitors apart.

Figures, each beside what it should be: server time of a closed-form change (300 ms; as processor time too, which does
not grow with the machine's other work), memory after many interactions (steady: no more than a tenth above what it was
after the first fifth), first answer of a fresh visitor's browser (3 s; beside it that of a bare Streamlit page with one
number and one chart, the least that any such app takes on this machine), and twenty visitors at once (no error, each
sees its own scenario): these speak the browser's protocol, as twenty browsers would be most of what is measured.
The browser parts need Playwright and Debian's Chromium, the visitors ``websockets``, which Streamlit brings.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INTERACTIONS, VISITORS = 500, 20
CHANGES = {
    "gpt3-175b-1024-a100": ((16, 32, 48, 64, 96, 128, 192, 256, 384, 512), 1536),
    "llama-3.1-405b-16384-h100": ((64, 128, 256, 512, 1024, 2048), 2048),
}
"""Scenario -> nodes that its plan divides, and a batch that they divide."""


def resident_bytes() -> int:
    """Of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def interactions(name: str, count: int) -> None:
    """Changes of two fields in Streamlit's own harness: server time, and memory before and after."""
    from streamlit.testing.v1 import AppTest

    page = AppTest.from_file(str(ROOT / "app" / "web" / "main.py"), default_timeout=120)
    page.query_params["scenario"] = name
    page.run()
    allowed, batch = CHANGES[name]
    walls, processor, early = [], [], 0
    for number in range(count):
        turn, place = divmod(number, len(allowed))
        page.sidebar.number_input(key=f"{name}:cluster.pools.0.nodes").set_value(allowed[place])
        page.sidebar.number_input(key=f"{name}:training.global_batch").set_value(
            batch * (2 + turn % 10)
        )  # more questions than answers are kept
        started, used = time.perf_counter(), time.process_time()
        page.run()
        walls.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
        if page.exception:
            raise SystemExit(page.exception[0].message)
        if len(page.metric) < 4:
            raise SystemExit(f"{name}, {allowed[place]} nodes: no answer")
        if number == count // 5:
            early = resident_bytes()
    for words, times in (("wall", walls), ("processor", processor)):
        middle, slow = statistics.median(times), sorted(times)[int(0.95 * len(times))]
        print(
            f"{name}, {words} time of a change: median {1e3 * middle:.0f} ms, 95 % {1e3 * slow:.0f} ms "
            "(target 300 ms)",
            flush=True,
        )
    now = resident_bytes()
    print(
        f"memory after {count}: {now / 2**20:.0f} MiB, {now / early:.2f} x that after {count // 5} (target 1.10)",
        flush=True,
    )


BARE = """import plotly.graph_objects as go
import streamlit as st
st.metric("one", "1 s")
st.plotly_chart(go.Figure(go.Bar(x=[1], y=["a"])))
"""


def bare_server(folder: Path) -> AbstractContextManager[str]:
    """A Streamlit page with one number and one chart: what the browser takes for any such app."""
    page = folder / "bare.py"
    page.write_text(BARE, encoding="utf-8")
    told = "'--server.headless=true', '--browser.gatherUsageStats=false', '--server.fileWatcherType=none'"
    return server(
        "import plotly.graph_objects, pandas; from streamlit.web import cli; "
        f"cli.main(['run', {str(page)!r}, '--server.address=127.0.0.1', '--server.port={{port}}', {told}])"
    )


OURS = "import sys; sys.argv = ['rackcast', 'app', '--port', '{port}']; from app.cli import main; main()"


@contextmanager
def server(code: str = OURS) -> Iterator[str]:
    """The address of a server of our own; ``code`` starts it on a port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", code.format(port=port)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
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


PAINTED = """
const asked = {number: "[data-testid=stMetricValue]", chart: ".js-plotly-plot .main-svg"}, found = {};
window.painted = {};
new MutationObserver(() => {
  for (const [what, where] of Object.entries(asked)) if (!found[what] && document.querySelector(where)) {
    found[what] = true;
    requestAnimationFrame(() => setTimeout(() => window.painted[what] = performance.timeOrigin + performance.now()));
  }
}).observe(document, {subtree: true, childList: true});
"""
"""Runs in the page: when the frame after an element's arrival was drawn, ms since 1970. (A look from outside waits in
line behind whatever script the page is reading, and calls a number late that stands on the screen.)"""


def first_answers() -> None:
    """How long a fresh visitor's browser takes to paint a number and its chart: at a server that has just said that it
    is ready, and once more; then the same of a bare page."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        browser.new_context().new_page().goto("about:blank")  # its own start is nobody's
        for what, opened in (("rackcast", server()), ("bare page", bare_server(Path(folder)))):
            with opened as address:
                for words in ("cold server", "warm server"):
                    visitor = browser.new_context()
                    page = visitor.new_page()
                    page.add_init_script(PAINTED)
                    begun = time.time()
                    page.goto(address)
                    page.wait_for_function("window.painted.number && window.painted.chart", timeout=120_000)
                    at_ms = page.evaluate("window.painted")
                    number_s, chart_s = (at_ms[one] / 1e3 - begun for one in ("number", "chart"))
                    goal = " (target 3 s)" if what == "rackcast" else ""
                    print(
                        f"first answer, {what}, {words}: {number_s:.1f} s{goal}, chart {chart_s:.1f} s",
                        flush=True,
                    )
                    visitor.close()  # its page goes on drawing: the next has a machine of its own
        browser.close()


async def _visit(address: str, batch: int) -> tuple[float, list[str]]:
    """Seconds until a visitor's page is whole, and the texts on it."""
    import websockets
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

    asked, texts = BackMsg(), []
    asked.rerun_script.query_string = f"training.global_batch={batch}"
    begun = time.perf_counter()
    where = address.replace("http", "ws") + "_stcore/stream"
    async with websockets.connect(
        where, max_size=None, origin=address.rstrip("/"), open_timeout=120
    ) as socket_:
        await socket_.send(asked.SerializeToString())
        while True:
            told = ForwardMsg.FromString(await socket_.recv())
            kind = told.WhichOneof("type")
            if kind == "script_finished":
                return time.perf_counter() - begun, texts
            if kind == "delta":
                element = told.delta.new_element
                what = element.WhichOneof("type")
                if what in ("metric", "code", "exception"):
                    field = {"metric": element.metric.body, "code": element.code.code_text}
                    texts.append(field.get(what, "exception"))


async def _crowd(address: str, batches: list[int]) -> list[tuple[float, list[str]]]:
    return await asyncio.gather(*(_visit(address, batch) for batch in batches))


def visitors(count: int) -> None:
    """Many visitors at once, each with a batch of its own, against one alone."""
    with server() as address:
        asyncio.run(_crowd(address, [1536]))
        ((alone_s, _),) = asyncio.run(_crowd(address, [1536 * 50]))
        batches = [1536 * (number + 2) for number in range(count)]
        found = asyncio.run(_crowd(address, batches))
    wrong = sum(
        "exception" in texts or not any(f"training.global_batch={batch}" in text for text in texts)
        for batch, (_, texts) in zip(batches, found, strict=True)
    )
    answers = len({texts[0] for _, texts in found if texts})
    print(
        f"{count} visitors at once: {wrong} wrong, {answers} different answers, "
        f"last after {max(seconds for seconds, _ in found):.1f} s, one alone {alone_s:.1f} s"
    )


def main() -> int:
    """All of them."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else INTERACTIONS
    for name in CHANGES:
        interactions(name, count)
    visitors(VISITORS)
    if shutil.which("chromium") is None:
        print("no chromium: the browser part is left out")
        return 0
    first_answers()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
