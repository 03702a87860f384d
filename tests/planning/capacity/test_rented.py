"""Nodes paid for by use, played job by job: what is paid, what interruptions cost, how they help the bought ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.planning.capacity.draws import Draws
from sim.planning.capacity.evaluate import Candidate, Evaluation, evaluate
from sim.planning.capacity.needs import needs
from sim.planning.capacity.plan import make_plan
from sim.planning.capacity.rates import reference_rates
from sim.planning.capacity.rented import (
    BOOT_S,
    KEEP_S,
    SPOT_INTERRUPTIONS_PER_NODE_DAY,
    rented,
    spot_interruptions,
)
from sim.planning.capacity.simulate import measured, play_option
from sim.planning.capacity.what_if import tornado
from sim.results.cluster_log import Placed, Segment
from sim.spec.catalog import load_catalog
from sim.spec.demand import Demand, Programme
from sim.spec.prices import general
from sim.spec.quantiles import Quantiles
from sim.spec.supply import Option, Part, Supply
from sim.statistics.streams import Streams

H100 = load_catalog().system("dgx-h100")
SURE = Quantiles.exactly


def rate(programme, system, devices):
    """Every device-hour does one unit of work."""
    return 1.0


def held(node, devices, start_s, end_s):
    length = end_s - start_s
    placed = Placed(0, ((node, devices),), ())
    return Segment("job", 0, devices, start_s, end_s, placed, "completed", length, 0.0, 0.0, 0.0, 0.0, 0.0)


def tried(*parts: Part, device_hours=8000.0) -> tuple[Evaluation, tuple]:
    asked = Demand("2027-01", 6, (Programme("work", "device-hours", device_hours=SURE(device_hours)),))
    option = Option("it", parts)
    wanted = needs(asked, Draws(8))
    return evaluate(Candidate(option, 1), asked, Supply((option,)), wanted, general(), Draws(8), rate,
                    reference_rates(asked.programmes, rate)), wanted  # fmt: skip


def play(*parts: Part, seed=0, **more):
    found, wanted = tried(*parts, **more)
    return play_option(found, wanted, rate, Streams(seed))


def test_a_rented_device_is_paid_for_from_its_start_until_it_is_given_back():
    """Two hours of four devices, and after an hour two more of them: by hand."""
    hour = 3600.0
    found = rented([held(5, 4, 0.0, 2 * hour), held(5, 2, 3 * hour, 4 * hour)], 5, 6, 8, 100 * hour)
    paid_s = 4 * (2 * hour + BOOT_S + KEEP_S) + 2 * (hour + BOOT_S + KEEP_S)
    assert found.fill_frac == pytest.approx(10 * hour / paid_s)
    assert (found.peak_nodes, found.additions) == (1, 6)
    assert found.mean_nodes == pytest.approx(paid_s / 8 / (100 * hour))


def test_a_short_gap_is_kept_and_paid_for():
    gap = BOOT_S + KEEP_S - 1
    found = rented([held(0, 8, 0.0, 1000.0), held(0, 8, 1000.0 + gap, 2000.0 + gap)], 0, 1, 8, 1e5)
    assert found.additions == 8
    assert found.fill_frac == pytest.approx(2000 / (2000 + gap + BOOT_S + KEEP_S))
    assert rented([held(7, 8, 0.0, 10.0)], 0, 5, 8, 1e5) is None  # all of it on nodes of one's own


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 4), st.floats(0, 1e5), st.floats(1, 1e4)), min_size=1
    )
)
@settings(max_examples=50, deadline=None)
def test_more_is_paid_than_held_and_never_more_than_every_job_alone(rows):
    spells = [held(node, devices, start, start + length) for node, devices, start, length in rows]
    found = rented(spells, 0, 3, 8, 1e6)
    work = sum(devices * length for _, devices, _, length in rows)
    alone = work + sum(devices for _, devices, _, _ in rows) * (BOOT_S + KEEP_S)
    paid = work / found.fill_frac
    assert work < paid <= alone * (1 + 1e-9)
    assert found.mean_nodes * 8 * 1e6 == pytest.approx(paid)


def test_spot_nodes_are_taken_back_at_the_stated_rate():
    days = 200.0
    stream = spot_interruptions(10, 40, Streams(1))
    count = 0
    for outage in stream:
        if outage.at_s > days * 86400:
            break
        assert 40 <= outage.nodes[0] < 50
        count += 1
    mean = 10 * days * SPOT_INTERRUPTIONS_PER_NODE_DAY
    assert abs(count - mean) < 4 * mean**0.5  # Poisson, four standard deviations


def test_spot_loses_more_than_rent_and_its_loss_is_measured():
    rent, spot = (play(Part(H100, 40, contract)) for contract in ("rent", "spot"))
    assert rent.spot_loss_frac is None
    assert 0.005 < spot.spot_loss_frac < 0.3
    assert rent.runtime_frac > 1 - spot.spot_loss_frac


def test_rented_nodes_come_when_the_own_ones_are_full():
    alone = play(Part(H100, 6, "buy"), device_hours=40_000.0)
    helped = play(Part(H100, 6, "buy"), Part(H100, 60, "rent"), device_hours=40_000.0)
    assert helped.rented.peak_nodes <= 60
    assert helped.rented.additions > 8
    assert helped.waits[0].p95_s < alone.waits[0].p95_s
    # nobody is hired for what the own ones can do
    quiet = play(Part(H100, 60, "buy"), Part(H100, 60, "rent"), device_hours=4000.0)
    assert quiet.rented is None or quiet.rented.mean_nodes < 1


def test_what_was_measured_replaces_what_was_assumed():
    found, _ = tried(Part(H100, 6, "buy"), Part(H100, 60, "spot"))
    played = play(Part(H100, 6, "buy"), Part(H100, 60, "spot"), device_hours=40_000.0)
    world = measured(general(), played)
    assert set(world) == {"scheduling_frac", "runtime_frac", "spot_loss_frac", "rented_scheduling_frac"}
    assert all(item.kind == "simulated" for item in world.values())
    assert world["rented_scheduling_frac"].value.mid == pytest.approx(played.rented.fill_frac)
    assert found.flow is not None


def test_the_same_streams_bring_the_same_luck_to_two_options():
    one = play(Part(H100, 6, "buy"), Part(H100, 60, "spot"))
    again = play(Part(H100, 6, "buy"), Part(H100, 60, "spot"))
    assert one == again
    assert play(Part(H100, 6, "buy"), Part(H100, 60, "spot"), seed=1) != one


@pytest.mark.parametrize("kind", ["team", "fine-tuning"])
def test_every_number_of_a_programme_moves_the_tornado(kind):
    """The register and the worlds must mean the same number by the same name."""
    doubt = Quantiles(10.0, 20.0, 60.0)
    which = {"team": {"people": doubt}, "fine-tuning": {"runs_per_month": doubt}}[kind]
    asked = Demand(
        "2027-01", 6, (Programme("work", kind, device_hours=Quantiles(50.0, 100.0, 300.0), **which),)
    )
    options = (Option("rent", (Part(H100, 400, "rent"),)),)
    swings = {
        s.assumption.name: s for s in tornado(make_plan(asked, Supply(options), None, rate, count=32)).swings
    }
    for name in ("work.device_hours", f"work.{next(iter(which))}"):
        assert swings[name].high_usd > 1.5 * swings[name].low_usd, name


def test_a_service_is_many_replicas_and_not_one_gang():
    """Replicas of a service need no room side by side: a node's worth at a time goes wherever there is one."""
    service = Programme("chat", "traffic", tokens_per_s=SURE(1.0))
    asked = Demand("2027-01", 6, (replace(service, tokens_per_s=SURE(30 * 8 / 3600.0)),))
    option = Option("it", (Part(H100, 20, "buy"), Part(H100, 20, "rent")))
    wanted = needs(asked, Draws(8))
    found = evaluate(Candidate(option, 1), asked, Supply((option,)), wanted, general(), Draws(8), rate,
                     reference_rates(asked.programmes, rate))  # fmt: skip
    played = play_option(found, wanted, rate, Streams(0))
    assert played.busy_frac > 0.95
    assert played.rented.peak_nodes == pytest.approx(10, abs=1)
