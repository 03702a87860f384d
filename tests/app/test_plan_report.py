"""The report of a capacity plan: its order, its tables beside the figures, and that a browser opens it offline."""

from __future__ import annotations

import re
from pathlib import Path
from shutil import which

import pytest

from app.report.plan_html import plan_report, tables
from app.report.plan_markdown import markdown
from app.report.plan_words import confidence_words, cut_words, decision_words, number_words
from sim import load, plan

SMALL = Path(__file__).resolve().parents[1] / "planning" / "capacity" / "small-plan.toml"
ORDER = (
    "The decision", "Demand", "Options considered", "From bought to useful", "How long jobs wait", "Cost and cash",
    "What moves the answer", "Energy and carbon", "Risks and their triggers", "Assumptions", "Validation and limits",
)  # fmt: skip


@pytest.fixture(scope="module")
def document():
    return plan(load(SMALL), 60)[1]


@pytest.fixture(scope="module")
def html(document):
    return plan_report(document)


def test_the_decision_comes_first_and_the_seed_last(document, html):
    heads = [head for head in re.findall(r"<h2>(.*?)</h2>", html) if head in ORDER]
    wanted = [head for head in ORDER if head != "How long jobs wait" or document["simulated"]]
    assert heads == wanted
    foot = html[html.index("<footer>") :]
    assert document["scenario"]["hash"] in foot
    assert f"seed {document['seed']}" in foot


def test_every_figure_has_words_and_a_table(html):
    figures = re.findall(r'<figure role="img" aria-label="([^"]+)">', html)
    assert len(figures) >= 4
    for place in re.finditer(r"</figure>", html):
        after = html[place.end() :]
        assert after.index("<table") < after.index("<h2>")


def test_markdown_and_tables_tell_the_same(document):
    text = markdown(document)
    assert decision_words(document) in text
    for row in document["options"]:
        assert row["name"] in text
    assert {row["name"] for row in tables(document)["options"]} == {
        row["name"] for row in document["options"]
    }
    assert len(tables(document)["cash"]) == 4


def test_cost_lines_add_up_in_every_future_and_are_all_shown(document, html):
    for row in document["cost_lines"]:
        shown = f"<td>{row['line']}</td>" in html
        assert shown == any(row["usd"].values())


def test_a_power_cut_is_told_in_useful_hours(document):
    words = cut_words(document)
    assert "300 hours a year" in words
    assert "useful device-hour" in words


def test_words_of_numbers():
    assert confidence_words(1.0) == "over 99 %"
    assert confidence_words(0.93) == "93 %"
    assert number_words(200_000) == "200,000"
    assert number_words(0.087) == "0.087"


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_a_browser_opens_it_offline_without_a_word(html, tmp_path, width, scheme):
    api = pytest.importorskip("playwright.sync_api")
    browser_path = which("chromium") or which("chromium-browser") or which("google-chrome")
    if browser_path is None:
        pytest.skip("no Chromium to open the report with")
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    said, asked = [], []
    with api.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        ).new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector(".plotly-graph-div svg")
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        printed = page.pdf() if width == 1280 else b"%PDF"
        browser.close()
    assert said == []
    assert asked == [file.as_uri()]
    assert overflow <= 0
    assert printed.startswith(b"%PDF")
