"""Max-min fair shares, against allocations by hand and the property that defines them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cost.max_min import Flow, max_min


def test_two_flows_halve_a_link_and_a_third_elsewhere_has_all():
    flows = {1: Flow({"a": 10.0}), 2: Flow({"a": 10.0}), 3: Flow({"b": 10.0})}
    assert max_min(flows, {"a": 10.0, "b": 10.0}) == {1: 0.5, 2: 0.5, 3: 1.0}


def test_the_parking_lot_of_bertsekas_and_gallager():
    # one long flow over three links of 1, 2 and 1; a short one on each: the first link gives a half to both, and so
    # does the third; the second leaves 2 - 1/2 to its own, which wants no more than 1
    flows = {
        0: Flow({"a": 1.0, "b": 1.0, "c": 1.0}),
        1: Flow({"a": 1.0}),
        2: Flow({"b": 1.0}),
        3: Flow({"c": 1.0}),
    }
    rates = max_min(flows, {"a": 1.0, "b": 2.0, "c": 1.0})
    assert rates == pytest.approx({0: 0.5, 1: 0.5, 2: 1.0, 3: 0.5})


def test_weights_share_as_they_stand_and_what_one_cannot_use_goes_to_the_others():
    assert max_min({1: Flow({"a": 4.0}, 3.0), 2: Flow({"a": 4.0}, 1.0)}, {"a": 4.0}) == {1: 0.75, 2: 0.25}
    flows = {1: Flow({"a": 4.0}, most=0.1), 2: Flow({"a": 4.0}), 3: Flow({"a": 4.0})}
    assert max_min(flows, {"a": 4.0}) == pytest.approx({1: 0.1, 2: 0.45, 3: 0.45})


def test_a_higher_level_goes_first_and_may_leave_nothing():
    flows = {1: Flow({"a": 3.0}, level=1.0), 2: Flow({"a": 3.0}), 3: Flow({"a": 3.0}, level=-1.0)}
    assert max_min(flows, {"a": 4.0}) == pytest.approx({1: 1.0, 2: 1 / 3, 3: 0.0})


def test_loads_and_weights_must_be_above_nothing():
    with pytest.raises(ValueError, match="flow 7"):
        max_min({7: Flow({"a": 0.0})}, {"a": 1.0})


LINKS = "abcd"


@st.composite
def networks(draw: st.DrawFn) -> tuple[dict[int, Flow], dict[str, float]]:
    number = st.floats(0.1, 10.0)
    flows = {
        n: Flow(
            {link: draw(number) for link in draw(st.sets(st.sampled_from(LINKS), max_size=3))},
            draw(number),
            draw(st.sampled_from([0.0, 1.0])),
            draw(st.floats(0.1, 1.0)),
        )
        for n in range(draw(st.integers(1, 8)))
    }
    return flows, {link: draw(number) for link in LINKS}


@settings(derandomize=True, max_examples=200, deadline=None)
@given(networks())
def test_no_link_is_overfull_and_nobody_can_gain_but_from_one_who_has_less_for_his_weight(network):
    flows, capacity = network
    rates = max_min(flows, capacity)
    used = {link: sum(rates[n] * flow.loads.get(link, 0.0) for n, flow in flows.items()) for link in capacity}
    for link, load in used.items():
        assert load <= capacity[link] * (1 + 1e-9)
    for n, flow in flows.items():
        assert 0 <= rates[n] <= flow.most
        if rates[n] >= flow.most * (1 - 1e-9):
            continue
        bottlenecks = [
            link
            for link in flow.loads
            if used[link] >= capacity[link] * (1 - 1e-9)
            and all(
                rates[n] / flow.weight >= rates[m] / other.weight - 1e-9
                for m, other in flows.items()
                if link in other.loads and other.level == flow.level and rates[m] > 0
            )
            and all(
                rates[m] <= 1e-9 or other.level >= flow.level
                for m, other in flows.items()
                if link in other.loads
            )
        ]
        assert bottlenecks, f"flow {n} could have more"
