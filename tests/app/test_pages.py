"""Every page but Step in Streamlit's own test harness: an answer at once, its controls, edges and bad addresses."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from app.web.state import Case, plain

Open = Callable[..., AppTest]


def values(page: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in page.metric}


def settled(page: AppTest) -> AppTest:
    """The page when its simulation is done."""
    until = time.monotonic() + 90
    while any(button.key.startswith("cancel:") for button in page.button) and time.monotonic() < until:
        time.sleep(0.3)
        page.run()
    return page


@pytest.fixture(scope="module")
def cluster(opened: Open, small: str) -> AppTest:
    page = opened("about")
    page.session_state["upload"] = Case("small.toml", small, uploaded=True)
    page.switch_page("views/cluster.py")
    page.query_params["scenario"] = "uploaded"
    return settled(page.run())


def test_a_cluster_shows_its_verdict_and_at_most_four_numbers(cluster: AppTest) -> None:
    assert not cluster.exception
    assert set(values(cluster)) == {"Verdict", "95 % wait less than", "Devices held", "Lasting work"}
    assert {"Over time", "Who waits", "Node by time"} <= {box.label for box in cluster.expander}
    assert cluster.code[0].value == "rackcast run small.toml"


def test_a_changed_policy_is_another_question(cluster: AppTest) -> None:
    before = values(cluster)
    cluster.sidebar.number_input(key="small.toml:cluster.pools.0.nodes").set_value(1).run()
    cluster.sidebar.selectbox(key="small.toml:policy.name").set_value("fifo").run()
    settled(cluster)
    assert not cluster.exception
    assert values(cluster) != before
    assert "--set policy.name=fifo" in cluster.code[0].value
    assert cluster.query_params["policy.name"] == "fifo"


def test_a_running_simulation_can_be_called_off_and_asked_again(cluster: AppTest) -> None:
    cluster.sidebar.number_input(key="small.toml:jobs.mixes.0.arrivals.rate_per_s").set_value(4000.0).run()
    (cancel,) = [button for button in cluster.button if button.key == "cancel:cluster"]
    cancel.click().run()
    assert any("Called off" in info.value for info in cluster.info)
    assert "again:cluster" in [button.key for button in cluster.button]


@pytest.mark.parametrize("query", [{"scenario": "nope"}, {"scenario": "uploaded"}])
def test_an_address_that_names_no_scenario_of_the_page_is_told(opened: Open, query: dict[str, str]) -> None:
    page = opened("plan", **query)
    assert not page.exception
    assert any("The address asks for" in warning.value for warning in page.warning)
    for button in page.button:
        if button.key == "cancel:plan":
            button.click().run()
    assert page.code[0].value.startswith("rackcast plan scenarios/")


def test_compare_opens_on_two_and_tells_the_difference_with_its_interval(opened: Open) -> None:
    page = opened("compare")
    assert not page.exception
    assert any("against A" in text.value and "80 %" in text.value for text in page.markdown)
    assert "--set-b training.plan.recompute=selective" in page.code[0].value
    assert len(page.query_params["case"]) == 2


def test_compare_takes_its_cases_from_the_address_and_shows_what_it_refuses(opened: Open) -> None:
    cases = ["llama-3.1-8b-64-h100", "llama-3.1-8b-64-h100;training.global_batch=512", "nope;x=1"]
    page = opened("compare", case=cases)
    assert not page.exception
    assert any(plain("nope") in error.value for error in page.error)
    assert "--set-b training.global_batch=512" in page.code[0].value


def test_compare_shows_the_tray(opened: Open) -> None:
    page = opened("step", scenario="article-eight-devices")
    page.button(key="keep").click().run()
    page.sidebar.number_input(key="article-eight-devices:training.global_batch").set_value(1024).run()
    page.button(key="keep").click().run()
    page.switch_page("views/compare.py").run()
    assert not page.exception
    assert len(page.multiselect[0].value) == 2
    page.button(key="empty").click().run()
    assert any("tray is empty" in info.value for info in page.info)


def test_catalogue_finds_by_words_and_says_when_nothing_matches(opened: Open) -> None:
    page = opened("catalogue")
    assert not page.exception
    everything = len(page.dataframe[0].value)
    page.text_input(key="find").set_value("h100 memory_bytes_per_s").run()
    found = page.dataframe[0].value
    assert 0 < len(found) < everything
    assert found["source"].str.len().min() > 0
    page.text_input(key="find").set_value("no such thing").run()
    assert any("Nothing matches" in info.value for info in page.info)


@pytest.mark.parametrize("part", ["systems", "models", "prices", "failure rates"])
def test_every_part_of_the_catalogue_has_sources(opened: Open, part: str) -> None:
    page = opened("catalogue", part=part)
    assert not page.exception
    table = page.dataframe[0].value
    assert (table["kind"] != "").all()
    assert (table["source"] != "").mean() > 0.9


def test_an_unknown_part_or_kind_or_profile_is_told(opened: Open) -> None:
    for name, query in (("catalogue", "part"), ("validation", "kind"), ("calibration", "profile")):
        page = opened(name, **{query: "<b>no</b>"})
        assert not page.exception
        assert any("The address asks for" in warning.value for warning in page.warning)


def test_validation_filters_and_tells_errors(opened: Open) -> None:
    page = opened("validation")
    assert not page.exception
    before = values(page)
    assert {"Rows predicted", "Median error", "90 % have less than"} <= set(before)
    page.toggle(key="held").set_value(False).run()
    assert values(page)["Median error"] != before["Median error"]
    first = page.multiselect[0]
    first.set_value([first.options[0]]).run()
    assert not page.exception
    assert values(page)["Rows predicted"] != before["Rows predicted"]
    assert page.query_params["gpu"] == first.options[0]


def test_calibration_shows_fits_points_and_age(opened: Open) -> None:
    page = opened("calibration")
    assert not page.exception
    assert int(values(page)["Fits"].replace(",", "")) > 10
    assert len(page.get("plotly_chart")) >= 1
    page.selectbox(key="profile").set_value("stacks").run()
    assert not page.exception
    assert page.query_params["profile"] == "stacks"


def test_about_says_what_it_is(opened: Open) -> None:
    page = opened("about")
    assert not page.exception
    assert any("sends nothing anywhere" in text.value for text in page.markdown)


@pytest.mark.parametrize(
    ("name", "query", "told"),
    [
        ("plan", {}, "Buy:"),
        ("compare", {"kind": "jobs"}, "Stable:"),
        ("compare", {"kind": "demand"}, "P10 to P90"),
    ],
)
def test_what_a_worker_answers_is_shown_whole(
    opened: Open, name: str, query: dict[str, str], told: str
) -> None:
    page = settled(opened(name, **query))
    assert not page.exception
    assert any(plain(told) in text.value for text in page.markdown)
    assert page.code[0].value.startswith(f"rackcast {name} scenarios/")
    if query:
        changed = next(table.value for table in page.table if table.value.index.name == "input")
        assert changed["B"].str.startswith("◆").all()
        assert not changed["A"].str.startswith("◆").any()


def test_a_kind_that_nothing_can_be_compared_by_is_told(opened: Open) -> None:
    page = opened("compare", kind="<b>no</b>", case=["llama-3.1-8b-64-h100", "plan-rent-or-buy"])
    assert not page.exception
    told = [warning.value for warning in page.warning]
    assert any("expected one of training, jobs, demand" in text for text in told)
    assert any("has no" in text for text in told)
