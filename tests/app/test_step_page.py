"""The Step page in Streamlit's own test harness: a complete answer at once, changes, links and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.web.state import plain

PAGE = str(Path(__file__).resolve().parents[2] / "app" / "web" / "main.py")


def opened(**query: str) -> AppTest:
    page = AppTest.from_file(PAGE, default_timeout=60)
    for name, value in query.items():
        page.query_params[name] = value
    return page.run()


def values(page: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in page.metric}


def test_it_opens_on_a_real_scenario_with_its_answer() -> None:
    page = opened()
    assert not page.exception
    assert page.title[0].value == "GPT-3 175B on 1,024 A100"
    assert set(values(page)) == {"Step time", "Bound by", "Peak used (MFU)", "Tokens/s"}
    assert any("Measured 32 s" in caption.value for caption in page.caption)
    assert "rackcast run scenarios/gpt3-175b-1024-a100.toml" in page.code[0].value


def test_a_changed_knob_changes_the_answer_the_link_and_the_command() -> None:
    page = opened()
    before = values(page)["Step time"]
    page.sidebar.number_input(key="gpt3-175b-1024-a100:cluster.pools.0.nodes").set_value(64).run()
    assert not page.exception
    assert values(page)["Step time"] != before
    assert page.query_params["cluster.pools.0.nodes"] == "64"
    assert "--set cluster.pools.0.nodes=64" in page.code[0].value


def test_a_link_opens_the_state_it_names() -> None:
    page = opened(**{"scenario": "llama-3.1-8b-64-h100", "training.global_batch": "512"})
    assert not page.exception
    assert page.title[0].value == "Llama 3.1 8B on 64 H100"
    assert "--set training.global_batch=512" in page.code[0].value


@pytest.mark.parametrize("value", ["-3", "1e9", "<b>x</b>", "99999999999999"])
def test_a_refused_value_in_the_link_is_shown_not_dropped(value: str) -> None:
    page = opened(**{"cluster.pools.0.nodes": value})
    assert not page.exception
    assert any(plain(value) in warning.value for warning in page.warning)
    assert values(page)["Step time"]


def test_an_unknown_scenario_in_the_link_is_said() -> None:
    page = opened(scenario="../../etc/passwd")
    assert not page.exception
    assert any(plain("../../etc/passwd") in warning.value for warning in page.warning)


def test_a_plan_that_cannot_be_is_told_in_the_words_of_the_command_line() -> None:
    page = opened(**{"training.plan.tensor": "7"})
    assert not page.exception
    assert any("expected a divisor of the model's heads" in error.value for error in page.error)
    assert not page.metric


def test_a_scenario_without_tokens_shows_samples() -> None:
    page = opened(scenario="article-eight-devices")
    assert not page.exception
    assert values(page)["Step time"] == "8 s"
    assert "Samples/s" in values(page)


def test_a_plan_that_does_not_fit_says_what_would() -> None:
    page = opened(scenario="llama-3.1-8b-64-h100", **{"training.plan.micro_batch": "4"})
    assert not page.exception
    assert any("It fits with" in error.value for error in page.error)
    assert "What makes it fit" in [box.label for box in page.expander]


def test_a_run_of_many_steps_has_its_own_table() -> None:
    page = opened(scenario="llama-3.1-8b-fsdp-run")
    assert not page.exception
    assert "The whole run" in {box.label for box in page.expander}
    assert any("goodput" in text.value for text in page.markdown)
    page.toggle(key="why").set_value(True).run()
    assert not page.exception
    assert any("What matters most" in text.value for text in page.markdown)
