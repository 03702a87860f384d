"""What an infrastructure lead would check first: spares, gangs, patience, power cuts, fabrics, hosted nodes, age."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.planning.capacity import months
from sim.planning.capacity.draws import Draws, world_of
from sim.planning.capacity.evaluate import Candidate, evaluate
from sim.planning.capacity.fleets import cut_frac, fleet, refusals
from sim.planning.capacity.history import by_week, monthly
from sim.planning.capacity.money import ledger, worth
from sim.planning.capacity.needs import needs
from sim.planning.capacity.plan import make_plan
from sim.planning.capacity.rates import reference_rates
from sim.planning.capacity.simulate import mean_of, play_option
from sim.planning.capacity.trained import trained_by
from sim.planning.capacity.what_if import risks, tornado
from sim.planning.capacity.why import first_if_cheaper_usd, near_misses
from sim.spec.catalog import load_catalog
from sim.spec.demand import Demand, Programme
from sim.spec.job import Job
from sim.spec.prices import Prices, general
from sim.spec.profiles import fits_for
from sim.spec.quantiles import Quantiles
from sim.spec.supply import Option, Part, Site, Supply
from sim.statistics.streams import Streams

CATALOG = load_catalog()
H100, B200 = CATALOG.system("dgx-h100"), CATALOG.system("dgx-b200")
SURE = Quantiles.exactly
MEDIAN = Draws(1, median=True)


def rate(programme, system, devices):
    """A GPU-hour of an H100 does one unit of work, of a B200 two."""
    unit = {"model": 3.6e6, "chat": 1.8e6, "traffic": 1.8e6}.get(programme.kind, 1.0)
    return unit * (2.0 if system.key == "dgx-b200" else 1.0)


def world(**given):
    return world_of(general(Prices(**{name: SURE(value) for name, value in given.items()})), MEDIAN)


def demand(*programmes, length=12, **more):
    return Demand("2027-01", length, programmes, **more)


def hours(amount, **more):
    return Programme(more.pop("name", "work"), "device-hours", device_hours=SURE(amount), **more)


def one(asked, *parts, site=None, estate=(), draws=MEDIAN, **prices):
    supply = Supply((Option("it", parts),), estate=estate, site=site or Site())
    given = general(Prices(**{name: SURE(value) for name, value in prices.items()}))
    reference = reference_rates(asked.programmes, rate)
    return evaluate(
        Candidate(supply.options[0], 1), asked, supply, needs(asked, draws), given, draws, rate, reference
    )


def test_spares_are_whole_nodes_and_stand_in_for_broken_ones():
    known = world(spares_frac=0.03, node_down_frac=0.02)
    small, large = (fleet(Part(H100, nodes, "buy"), 1, "2027-01", 12, known, MEDIAN) for nodes in (10, 100))
    assert (small.spares[0], large.spares[0]) == (0, 3)
    assert small.available[0, 0] == pytest.approx(0.98 * small.owned[0, 0])
    assert large.available[0, 0] == pytest.approx(large.owned[0, 0])  # 103 nodes at 98 % are more than 100
    books = ledger(large, large.running, known, MEDIAN)
    assert books.line_usd("spares")[0] == pytest.approx(books.line_usd("nodes")[0] * 0.03)


def test_a_lease_pays_for_its_spares_and_its_installation():
    asked, lease = demand(hours(1.0)), Part(H100, 100, "lease", months=12)
    dear = one(asked, lease, spares_frac=0.05)
    plain = one(asked, lease, spares_frac=0.0)
    assert dear.ledger.line_usd("lease")[0] > plain.ledger.line_usd("lease")[0]
    assert dear.ledger.line_usd("installation")[0] > 0


def test_machines_lose_value_like_used_ones():
    known = world(residual_frac=0.12, life_years=5.0)
    value = worth(np.array([[0.0, 36.0, 60.0, 90.0]]), known)[0]
    assert value[0] == 1
    assert 0.25 < value[1] < 0.35  # price pages: 25-35 % after 36 months
    assert value[2] == pytest.approx(0.12)
    assert value[3] == pytest.approx(0.12)


def test_capital_charges_discount_to_what_was_paid():
    """Residual income: loss of value and financing, discounted at the cost of capital, are worth price less resale."""
    found = one(demand(hours(1.0), length=24), Part(H100, 4, "buy"), cost_of_capital_frac_per_year=0.12)
    cents = found.ledger.cents
    paid = sum(cents[line][0, 0] for line in ("nodes", "network", "storage", "spares"))
    install = cents["installation"][0, 0]
    resale = -cents["resale"][0, -1]
    known = world(cost_of_capital_frac_per_year=0.12)
    value = paid * worth(np.arange(25.0)[None, :], known)[0]
    loss = -np.diff(value) + cents["financing"][0] - np.where(np.arange(24) == 0, install * 0.01, 0)
    discount = 1.01 ** -np.arange(1.0, 25.0)
    assert (loss * discount).sum() == pytest.approx(paid - resale * discount[-1], rel=1e-6)


def test_written_off_is_not_switched_off():
    known = world(life_years=4.0)
    found = fleet(Part(H100, 1, "buy"), 1, "2027-01", 60, known, MEDIAN)
    assert found.owned[0, -1] > 0
    assert fleet(Part(H100, 1, "buy", months=48), 1, "2027-01", 60, known, MEDIAN).owned[0, -1] == 0


def test_hosted_nodes_need_fewer_people_and_broken_rented_ones_are_not_paid_for():
    asked = demand(hours(8 * months.HOURS))
    rented = one(asked, Part(H100, 9, "rent"), hosted_staff_frac=0.25, rented_scheduling_frac=1.0,
                 runtime_frac=1.0)  # fmt: skip
    own = one(asked, Part(H100, 1, "buy"), scheduling_frac=1.0, runtime_frac=1.0)
    assert rented.ledger.line_usd("people")[0] == pytest.approx(
        0.25 * own.ledger.line_usd("people")[0], rel=1e-3
    )
    assert rented.waterfall()["bought"] == pytest.approx(rented.waterfall()["useful"])


def test_the_estate_pays_for_support_space_and_people_but_not_for_itself():
    found = one(demand(hours(1.0)), Part(H100, 1, "rent"), estate=(Part(H100, 2, "buy"),))
    lines = {line: found.ledger.line_usd(line)[0] for line in found.ledger.cents}
    assert min(lines[line] for line in ("support", "facility", "energy", "people")) > 0
    assert lines["nodes"] == lines["resale"] == lines["financing"] == 0


def test_a_retired_estate_makes_room():
    old, new = Part(H100, 4, "buy", months=6), Part(H100, 4, "buy", delivery="2027-08")
    known = world()
    fleets = tuple(fleet(p, 1, "2027-01", 12, known, MEDIAN, sunk=s) for p, s in ((old, True), (new, False)))
    assert not refusals(fleets, Site(racks=1), general())
    together = (fleets[0], fleet(replace(new, delivery="2027-03"), 1, "2027-01", 12, known, MEDIAN))
    (told,) = refusals(together, Site(racks=1), general())
    assert (told.needs, told.has) == (2, 1)


def test_a_training_run_is_one_gang_in_one_place():
    """Two kinds of nodes that only together would make the date do not make it."""
    tokens = SURE(2 * 8 * months.HOURS * 3.6e6 * 0.9)
    run = Programme("run", "model", model=CATALOG.model("llama-3-8b"), tokens=tokens, deadline="2027-01")
    sure = {"scheduling_frac": 1.0, "runtime_frac": 1.0, "node_down_frac": 0.0}
    apart = one(demand(run), Part(H100, 1, "buy"), Part(H100, 1, "reserve", months=12), **sure)
    together = one(demand(run), Part(H100, 1, "buy"), Part(H100, 1, "buy"), **sure)
    assert apart.met("run") == 0
    assert together.met("run") == 1
    assert apart.flow.served[0].finished[0] == pytest.approx(1.8)


@pytest.mark.parametrize(("patience", "short_months"), [(0, 6), (1, 5), (None, 0)])
def test_unmet_work_is_given_up_when_its_patience_ends(patience, short_months):
    """Six months of work for two nodes that come after six months: the later half of the year can catch up."""
    asked = demand(hours(8 * months.HOURS, end="2027-06", wait_months=patience))
    found = one(asked, Part(H100, 1, "buy", delivery="2027-07"), scheduling_frac=1.0, runtime_frac=1.0,
                node_down_frac=0.0)  # fmt: skip
    assert found.short_hours.sum() == pytest.approx(short_months * 8 * months.HOURS)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 6), st.floats(1.0, 3e4), st.floats(0.0, 1.0))
def test_work_is_done_or_short_and_never_both(patience, amount, growth):
    asked = demand(hours(amount, wait_months=patience, growth_frac_per_year=SURE(growth)))
    found = one(asked, Part(H100, 2, "buy", delivery="2027-04"))
    served = found.flow.served[0]
    assert served.done.sum() + served.short.sum() == pytest.approx(served.need.work.sum(), rel=1e-9)


def test_a_power_cut_switches_off_only_what_the_rest_cannot_feed():
    known = world(power_compute_frac=0.8, pue=1.25)
    watts = 10 * H100.node_power_w
    parts = [(Part(H100, 10, "buy"), 1), (Part(H100, 100, "rent"), 1)]
    year = {"curtail_hours_per_year": 8766.0}
    assert cut_frac(parts, Site(power_w=2 * watts, curtail_frac=0.5, **year), known)[0] == pytest.approx(0)
    assert cut_frac(parts, Site(power_w=watts, curtail_frac=0.5, **year), known)[0] == pytest.approx(0.5)
    assert cut_frac(parts, Site(curtail_frac=0.3, **year), known)[0] == pytest.approx(0.3)
    assert cut_frac([], Site(power_w=watts, curtail_frac=0.5, **year), known)[0] == pytest.approx(0)


def test_an_oversubscribed_fabric_is_cheaper_and_slower():
    cards = CATALOG.system("dgx-a100-80gb")  # a short sequence: what crosses the spine is not all hidden
    plain, thin = Part(cards, 64, "buy"), Part(cards, 64, "buy", oversubscription=8.0)
    known = world()
    network = [
        ledger(own, own.running, known, MEDIAN).line_usd("network")[0]
        for own in (fleet(part, 1, "2027-01", 12, known, MEDIAN) for part in (plain, thin))
    ]
    assert network[1] == pytest.approx(network[0] * (0.5 + 0.5 / 8))
    run = Programme("run", "model", model=CATALOG.model("llama-3.1-8b"), global_batch=512, sequence=1024)
    fast, slow = (trained_by(fits_for("shipped"))(run, part.wired, 64 * 8) for part in (plain, thin))
    assert 0 < slow < fast


def test_the_scheduling_rule_of_an_option_is_what_is_simulated():
    asked = demand(
        Programme("people", "team", people=SURE(30), device_hours=SURE(100)),
        Programme("tunes", "fine-tuning", runs_per_month=SURE(30), device_hours=SURE(60)),
    )
    waits = {}
    for policy in ("fifo", "easy"):
        option = Option("it", (Part(H100, 1, "buy"),), policy=policy)
        draws = Draws(16)
        found = evaluate(Candidate(option, 1), asked, Supply((option,)), needs(asked, draws), general(), draws, rate,
                         reference_rates(asked.programmes, rate))  # fmt: skip
        played = play_option(found, needs(asked, draws), rate, Streams(0))
        waits[policy] = next(w.p50_s for w in played.waits if w.programme == "people")
    assert waits["easy"] < waits["fifo"]


def test_history_counts_whole_weeks_from_the_first_submission():
    week = 7 * 24 * 3600.0
    jobs = [Job(f"j{n}", 1e6 + n * week, 8, 3600.0 * 10) for n in range(6)]
    assert by_week(jobs) == pytest.approx([80.0] * 5)
    straddling = [Job("long", 0.0, 1, 2 * week), Job("end", 3 * week, 1, 1.0)]
    assert by_week(straddling) == pytest.approx([168, 168, 0])


@given(st.lists(st.floats(0.0, 1e5), min_size=4, max_size=60))
@settings(max_examples=20, deadline=None)
def test_the_level_of_a_history_surrounds_its_mean(weeks):
    level, month = monthly(weeks)
    mean = np.mean(weeks) * months.HOURS / 168
    assert level.low <= mean * (1 + 1e-9) + 1e-9
    assert level.high >= mean * (1 - 1e-9) - 1e-9
    assert month.low <= 1 + 1e-9


def test_a_steady_history_is_demand_without_doubt():
    past = Programme("past", "history", week_device_hours=(100.0,) * 12)
    (need,) = needs(demand(past), Draws(8))
    assert need.work == pytest.approx(np.full((8, 12), 100 * months.HOURS / 168))


def two_options(gap, seed=0):
    asked = demand(hours(8 * months.HOURS), value_usd_per_gpu_hour=Quantiles(4.0, 6.0, 9.0))
    options = tuple(
        Option(name, (Part(H100, 2, "buy", node_usd=Quantiles(2.5e5, 3e5, 3.6e5) * factor),))
        for name, factor in (("cheap", 1.0), ("dear", gap))
    )
    return make_plan(asked, Supply(options, site=Site(racks=10)), None, rate, seed=seed, count=64)


def test_an_option_that_costs_so_much_less_would_be_the_choice():
    plan = two_options(1.1)
    dear = next(e for e in plan.evaluations if e.candidate.name == "dear")
    less = first_if_cheaper_usd(plan, dear)
    gap = dear.cost_usd - plan.chosen.cost_usd
    assert gap.min() * 0.99 <= less <= gap.max() * 1.01
    assert [miss.name for miss in near_misses(plan)] == ["dear"]


def test_a_tornado_is_what_one_world_at_a_time_would_say():
    plan = two_options(1.3)
    found = tornado(plan)
    swing = next(s for s in found.swings if s.assumption.name == "energy_usd_per_kwh")
    low = plan.tried(Draws(1, 0, {"energy_usd_per_kwh": -1.2815515655446004}, median=True))
    middle = plan.tried(Draws(1, 0, median=True))
    assert swing.low_usd == pytest.approx(low[plan.choice.chosen].loss_usd[0])
    assert found.middle_usd == pytest.approx(middle[plan.choice.chosen].loss_usd[0])


def test_the_choice_turns_at_the_trigger_of_a_risk():
    asked = demand(hours(5 * months.HOURS), value_usd_per_gpu_hour=Quantiles(2.0, 4.0, 9.0), length=24)
    supply = Supply((Option("buy", (Part(H100, 1, "buy"),)), Option("rent", (Part(H100, 3, "rent"),))))
    plan = make_plan(asked, supply, None, rate, count=64)
    found = risks(plan, tornado(plan).swings)
    assert found
    for risk in found:
        assert risk.instead != plan.chosen.candidate.name
        assert 0.01 <= risk.chance <= 0.5
        assert (risk.trigger > risk.assumption.value.mid) == risk.rises


@pytest.mark.parametrize("seeds", [range(20)])
def test_over_twenty_seeds_the_choice_stays_or_is_called_close(seeds):
    plans = [two_options(1.02, seed) for seed in seeds]
    names = {plan.chosen.candidate.name for plan in plans}
    assert names == {"cheap"} or all(plan.choice.too_close for plan in plans)


def test_a_close_race_is_run_in_more_worlds_and_a_clear_one_is_not():
    clear = two_options(1.5)
    late = Quantiles(0.0, 2.0, 6.0)  # of each its own
    twins = tuple(Option(name, (Part(H100, 2, "buy", delay_months=late),)) for name in ("one", "two"))
    close = make_plan(clear.demand, Supply(twins), None, rate, count=64)
    assert close.choice.too_close
    assert (clear.worlds, clear.replications) == (64, 3)
    assert (close.worlds, close.replications) == (64 * 4, 12)
    # the first worlds stay what they were: more of them can only sharpen the answer
    few, many = needs(close.demand, Draws(64, 3))[0].work, needs(close.demand, Draws(256, 3))[0].work
    assert many[:32] == pytest.approx(few[:32])


def test_a_rule_of_priorities_lets_the_urgent_programme_pass():
    asked = demand(hours(5000, name="scans", priority=10.0), hours(5000, name="tests"))
    waits = {}
    for policy in ("fifo", "priority"):
        option = Option("it", (Part(H100, 2, "buy"),), policy=policy)
        wanted = needs(asked, Draws(16))
        found = evaluate(Candidate(option, 1), asked, Supply((option,)), wanted, general(), Draws(16), rate,
                         reference_rates(asked.programmes, rate))  # fmt: skip
        played = mean_of([play_option(found, wanted, rate, Streams(seed)) for seed in range(6)])
        waits[policy] = {w.programme: w.p95_s for w in played.waits}
    assert waits["priority"]["scans"] < waits["fifo"]["scans"]
    assert waits["priority"]["scans"] < waits["priority"]["tests"]
