"""The real server in a real browser: every page, a change, a download, a link; nothing leaves the machine.

Skips where Playwright or Debian's Chromium is absent.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra: dev)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
if not CHROMIUM:
    pytest.skip("needs Debian's chromium", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("Step", "Cluster", "Plan", "Compare", "Calibration", "Validation", "Catalogue", "About")
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a server of our own on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"import sys; sys.argv = ['rackcast', 'app', '--port', '{port}']; from app.cli import main; main()"
    server = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A fresh visitor; afterwards: no console error, and no request off this machine."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(WAIT_MS)
    opened = context.new_page()
    errors: list[str] = []
    outside: list[str] = []
    # on a path of its own Streamlit's script tries where the server is: that miss is no error of ours
    opened.on(
        "console",
        lambda said: (
            errors.append(said.text) if said.type == "error" and "_stcore" not in str(said.location) else None
        ),
    )
    opened.on("pageerror", lambda fault: errors.append(str(fault)))
    local = (address, address.replace("http", "ws"), "data:", "blob:")
    opened.on("request", lambda sent: None if sent.url.startswith(local) else outside.append(sent.url))
    yield opened
    context.close()
    assert errors == []
    assert outside == []


def step_time(page: Any) -> str:
    return str(page.get_by_test_id("stMetricValue").first.inner_text())


def settled(page: Any) -> None:
    """Wait until the script of the page has run to its end."""
    page.get_by_test_id("stCode").first.wait_for()
    page.locator('[data-test-script-state="notRunning"]').first.wait_for()


def test_a_change_moves_the_answer_and_the_link_brings_it_back(
    page: Any, address: str, tmp_path: Path
) -> None:
    page.goto(address + "?scenario=article-eight-devices")
    page.get_by_test_id("stMetricValue").first.wait_for()
    before = step_time(page)
    field = page.get_by_label("Global batch (sequences)")
    field.fill("1024")
    field.press("Enter")
    page.wait_for_url("**training.global_batch=1024**")
    page.wait_for_function(
        "old => document.querySelector('[data-testid=stMetricValue]').innerText !== old", arg=before
    )
    settled(page)
    after = step_time(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download report").click()
    report = tmp_path / "report.html"
    waiting.value.save_as(report)
    assert "<html" in report.read_text(encoding="utf-8")[:200]
    page.goto(page.url)
    page.get_by_test_id("stMetricValue").first.wait_for()
    page.wait_for_function(
        "now => document.querySelector('[data-testid=stMetricValue]').innerText === now", arg=after
    )
    assert page.get_by_label("Global batch (sequences)").input_value() == "1024"


def test_every_page_opens_from_the_bar(page: Any, address: str) -> None:
    page.goto(address + "?scenario=article-eight-devices")
    page.get_by_test_id("stMetricValue").first.wait_for()
    for name in PAGES:
        page.get_by_role("link", name=name, exact=True).first.click()
        page.get_by_text("The same on the command line").first.wait_for()
        page.get_by_role("heading", level=1).first.wait_for()
        assert page.get_by_test_id("stException").count() == 0
    page.get_by_role("link", name="Step", exact=True).first.click()
    page.wait_for_url("**scenario=article-eight-devices**")


@pytest.mark.parametrize("name", ["", "compare", "calibration", "validation"])
def test_every_chart_has_words_and_every_control_a_name(page: Any, address: str, name: str) -> None:
    page.goto(address + name)
    page.get_by_test_id("stPlotlyChart").first.wait_for()
    settled(page)
    charts = page.get_by_test_id("stPlotlyChart").all()
    for chart in charts:
        words = chart.evaluate(
            "one => [one, ...one.querySelectorAll('*')].map("
            "e => e.getAttribute('aria-label') || e.getAttribute('alt') || '').join(' ')"
        )
        assert len(words.split()) >= 4, "a chart without a text alternative"
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('[data-testid=stSidebar] input, [data-testid=stMain] input,"
        " [data-testid=stMain] button')].filter(e => e.offsetParent && !e.getAttribute('aria-label')"
        " && !e.getAttribute('aria-labelledby') && !(e.labels && e.labels.length)"
        " && !e.innerText.trim() && !e.title && e.type !== 'file').map(e => e.outerHTML.slice(0, 200))"
    )
    assert unnamed == []


def test_the_inputs_are_reached_and_changed_by_keyboard_alone(page: Any, address: str) -> None:
    page.goto(address + "?scenario=article-eight-devices")
    page.get_by_test_id("stMetricValue").first.wait_for()
    settled(page)
    before, seen = step_time(page), []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("() => document.activeElement.getAttribute('aria-label') || ''"))
        if seen[-1] == "Global batch (sequences)":
            break
    assert seen[-1] == "Global batch (sequences)", seen
    page.keyboard.press("Control+a")
    page.keyboard.type("1024")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "old => document.querySelector('[data-testid=stMetricValue]').innerText !== old", arg=before
    )


def test_an_uploaded_file_is_refused_in_words_and_a_good_one_is_opened(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_test_id("stMetricValue").first.wait_for()
    page.get_by_text("Your own scenario").click()
    picker = page.locator("input[type=file]").first
    picker.set_input_files({"name": "<img src=x>.toml", "mimeType": "text/plain", "buffer": b"\x00\x01"})
    page.get_by_text("is not text but binary data").first.wait_for()
    text = (ROOT / "scenarios/article-eight-devices.toml").read_text(encoding="utf-8")
    named = text.replace(
        "name = ", 'name = "<img src=http://example.invalid/x> ![x](http://example.invalid/y)" #', 1
    )
    picker.set_input_files({"name": "mine.toml", "mimeType": "text/plain", "buffer": named.encode()})
    page.get_by_role("heading", name="<img src=http://example.invalid/x>").first.wait_for()
    assert page.locator("img[src*=invalid]").count() == 0
