"""Planning by construction: what must hold for any demand, price and option."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.planning.capacity import months
from sim.planning.capacity.draws import Draws
from sim.planning.capacity.evaluate import Candidate, evaluate
from sim.planning.capacity.needs import needs
from sim.planning.capacity.plan import make_plan
from sim.planning.capacity.rates import reference_rates
from sim.planning.capacity.sizing import needed_devices
from sim.planning.capacity.what_if import tornado
from sim.planning.capacity.why import why_not
from sim.spec.catalog import load_catalog
from sim.spec.demand import Demand, Programme
from sim.spec.prices import Assumption, Prices, general
from sim.spec.quantiles import Quantiles
from sim.spec.supply import Option, Part, Site, Supply

CATALOG = load_catalog()
H100, B200 = CATALOG.system("dgx-h100"), CATALOG.system("dgx-b200")
CERTAIN = Prices(**{f: Quantiles.exactly(v) for f, v in {
    "spot_frac": 0.5, "lease_rate_frac_per_year": 0.12, "network_frac": 0.1, "storage_frac": 0.05, "install_frac": 0.03,
    "spares_frac": 0.0, "support_frac_per_year": 0.05, "facility_usd_per_kw_month": 200.0, "energy_usd_per_kwh": 0.1,
    "pue": 1.2, "power_compute_frac": 0.75, "power_stall_frac": 0.5, "power_idle_frac": 0.2,
    "hosted_staff_frac": 0.25, "staff_usd_per_year": 200e3,
    "nodes_per_engineer": 100.0, "cost_of_capital_frac_per_year": 0.12, "life_years": 5.0,
    "residual_frac": 0.1, "carbon_kg_per_kwh": 0.4, "embodied_kg_per_node": 3000.0, "spot_loss_frac": 0.1,
    "node_down_frac": 0.0, "scheduling_frac": 1.0, "rented_scheduling_frac": 1.0,
    "runtime_frac": 1.0}.items()})  # fmt: skip
"""A world without failures, idle gaps and doubt."""


def rate(programme, system, devices):
    """A GPU-hour of an H100 does one unit of work, of a B200 two."""
    unit = {"model": 3.6e6, "chat": 1.8e6, "traffic": 1.8e6}.get(programme.kind, 1.0)
    return unit * (2.0 if system.key == "dgx-b200" else 1.0)


def hours(amount, **more):
    return Programme("work", "device-hours", device_hours=Quantiles.exactly(amount), **more)


def demand(*programmes, length=12, **more):
    return Demand("2027-01", length, programmes, **more)


def buy(nodes, system=H100, name="buy", **more):
    return Option(name, (Part(system, nodes, "buy", node_usd=Quantiles.exactly(300e3), **more),))


def one(asked, option, prices=CERTAIN, count=2, **supply):
    """One option evaluated alone."""
    draws = Draws(count, 0)
    reference = reference_rates(asked.programmes, rate)
    return evaluate(Candidate(option, 1), asked, Supply((option,), **supply), needs(asked, draws), general(prices),
                    draws, rate, reference)  # fmt: skip


def test_without_doubt_and_failures_the_closed_form_comes_out():
    asked = demand(hours(8 * months.HOURS))
    found = one(asked, buy(2))
    price, network, storage, install = 600e3, 60e3, 30e3, 18e3
    worth = price + network + storage
    value = [worth * 0.1 ** (m / 60) for m in range(13)]
    kw = H100.node_power_w / 1e3
    power_kwh = 12 * months.HOURS * kw * 1.2 * (0.75 + 0.2)  # one node computes, one is idle
    expected = {
        "nodes": price,
        "network": network,
        "storage": storage,
        "installation": install,
        "resale": -value[12],
        "facility": 2 * kw * 200 * 12,
        "energy": power_kwh * 0.1,
        "support": 0.05 * (price + network),
        "people": 2 / 100 * 200e3,
        "financing": 0.01 * (price + network + storage + install + sum(value[1:12])),
    }
    for line, usd in expected.items():
        assert found.ledger.line_usd(line)[0] == pytest.approx(usd, abs=0.12), line
    assert found.cost_usd[0] == pytest.approx(sum(expected.values()), abs=0.6)
    assert found.kwh["compute"][0] + found.kwh["idle"][0] == pytest.approx(power_kwh)
    assert {k: v[0] for k, v in found.waterfall().items()} == pytest.approx(
        dict.fromkeys(("bought", "available", "scheduled", "running"), 16 * 12 * months.HOURS)
        | {"useful": 8 * 12 * months.HOURS}
    )
    assert found.short_hours.sum() == 0


def test_rented_hours_are_paid_as_used_and_reserved_ones_always():
    asked = demand(hours(100.0))
    for contract, usd in (("rent", 2.0 * 100 * 12), ("reserve", 2.0 * 8 * months.HOURS * 12)):
        part = Part(H100, 1, contract, price_usd_per_gpu_hour=Quantiles.exactly(2.0))
        found = one(asked, Option("hours", (part,)))
        line = "rented hours" if contract == "rent" else "reserved hours"
        assert found.ledger.line_usd(line)[0] == pytest.approx(usd, abs=0.1)


def test_a_lease_pays_back_its_price_with_interest():
    """The payments and the residual, discounted at the lease's own rate, are worth the price."""
    asked = demand(hours(1.0), length=24)
    lease = Part(H100, 3, "lease", months=24, node_usd=Quantiles.exactly(300e3))
    monthly = one(asked, Option("lease", (lease,))).ledger.cents["lease"][0] / 100
    price = 3 * 300e3 * 1.15
    residual = price * 0.1 ** (24 / 60)
    worth = sum(pay / 1.01 ** (month + 1) for month, pay in enumerate(monthly)) + residual / 1.01**24
    assert worth == pytest.approx(price, rel=1e-6)


def test_a_training_run_ends_when_its_work_is_done_and_is_late_after_its_deadline():
    tokens = Quantiles.exactly(16 * months.HOURS * 3.6e6 * 3.5)  # 3.5 months of two nodes
    asked = demand(Programme("run", "model", deadline="2027-03",
                             model=CATALOG.model("llama-3-8b"), tokens=tokens),
                   month_late_usd=Quantiles.exactly(1e6))  # fmt: skip
    found = one(asked, buy(2))
    assert found.flow.served[0].finished[0] == pytest.approx(3.5)
    assert found.lateness_usd[0] == pytest.approx(0.5e6)
    assert found.met("run") == 0


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 1e5), st.floats(0.05, 5), st.integers(1, 24), st.integers(1, 4))
def test_cents_add_up_and_cash_with_financing_is_the_cost(amount, delay, length, nodes):
    asked = demand(hours(amount), length=length)
    found = one(asked, buy(nodes, delay_months=Quantiles(0.0, delay, 2 * delay)), Prices(), count=16)
    lines = sum(entry.sum(axis=1) for entry in found.ledger.cents.values())
    assert np.array_equal(lines, np.rint(found.cost_usd * 100).astype(np.int64))
    assert found.ledger.cash_usd.sum(axis=1) + found.ledger.line_usd("financing") == pytest.approx(
        found.cost_usd
    )
    steps = list(found.waterfall().values())
    assert all((a >= b - 1e-6).all() for a, b in pairwise(steps))
    with np.errstate(invalid="ignore"):
        shares = [np.nan_to_num(b / a) for a, b in pairwise(steps)]
    assert np.prod(shares, axis=0) * steps[0] == pytest.approx(steps[-1])


@settings(max_examples=25, deadline=None)
@given(st.floats(10, 1e5), st.floats(1.0, 3.0), st.integers(0, 3))
def test_more_demand_never_needs_fewer_devices(amount, factor, seed):
    shares = np.full(8, 0.8)

    def devices(scale):
        asked = demand(replace(hours(1.0), device_hours=Quantiles(amount / 2, amount, amount * 3) * scale))
        return needed_devices(needs(asked, Draws(8, seed)), H100, rate, shares, 64)

    assert (devices(factor) >= devices(1.0) - 1e-9).all()


def test_the_need_of_a_flat_demand_is_its_hours_over_the_running_hours():
    asked = demand(hours(100 * months.HOURS))
    assert needed_devices(needs(asked, Draws(2)), B200, rate, np.full(2, 0.8), 64) == pytest.approx(
        100 / 2 / 0.8
    )


@settings(max_examples=10, deadline=None)
@given(st.floats(0.3, 0.999), st.integers(0, 5))
def test_a_cheaper_identical_option_always_wins(discount, seed):
    asked = demand(hours(8 * months.HOURS))
    dear = Option("dear", (Part(H100, 2, "buy", node_usd=Quantiles(2e5, 3e5, 4e5)),))
    cheap = Option("cheap", (Part(H100, 2, "buy", node_usd=Quantiles(2e5, 3e5, 4e5) * discount),))
    plan = make_plan(asked, Supply((dear, cheap)), None, rate, seed=seed, count=32)
    names = [plan.evaluations[i].candidate.name for i in plan.choice.order]
    assert names.index("cheap") < names.index("dear")


def test_doing_nothing_costs_nothing_and_leaves_everything_undone():
    asked = demand(hours(50.0), value_usd_per_gpu_hour=Quantiles.exactly(4.0))
    plan = make_plan(asked, Supply((buy(1),)), CERTAIN, rate, count=4)
    nothing = next(e for e in plan.evaluations if e.candidate.name == "do nothing")
    assert nothing.cost_usd == pytest.approx(0)
    assert nothing.shortage_usd == pytest.approx(50 * 12 * 4.0)


def test_the_site_refuses_with_the_limit_that_binds_and_an_unknown_price_is_said():
    asked = demand(hours(50.0))
    unknown = Option("no price", (Part(CATALOG.system("dgx-1v"), 1, "buy"),))
    site = Site(power_w=100e3, racks=5, network_ports=8)
    plan = make_plan(asked, Supply((buy(40), unknown), site=site), None, rate, count=4)
    told = {e.candidate.name: why_not(plan, e) for e in plan.refused}
    for limit in ("power", "racks", "ports"):
        assert limit in told["buy"]
    assert "no price is known" in told["no price"]
    assert plan.chosen.candidate.name == "do nothing"


def test_a_power_cut_of_the_utility_takes_useful_hours():
    asked = demand(hours(1e9))
    whole = one(asked, buy(2))
    cut = one(asked, buy(2), site=Site(curtail_hours_per_year=876.6, curtail_frac=0.5))
    assert cut.waterfall()["useful"] == pytest.approx(0.95 * whole.waterfall()["useful"])


def test_people_words_become_numbers_that_are_shown():
    asked = demand(Programme("us", "team", people=Quantiles.exactly(40)),
                   Programme("bot", "chat", people=Quantiles.exactly(5000)),
                   Programme("llm", "model", model=CATALOG.model("llama-3-70b"), deadline="2027-03"))  # fmt: skip
    found = {need.programme.name: need for need in needs(asked, Draws(2))}
    assert [a.name for a in found["us"].implied] == ["us.device_hours"]
    assert [a.name for a in found["bot"].implied] == ["bot.tokens_per_s_per_user"]
    assert found["llm"].implied[0].value.mid == pytest.approx(20 * 70.55e9, rel=0.01)
    assert found["us"].work[0, 0] == pytest.approx(
        40 * Quantiles(60.0, 200.0, 600.0).at(Draws(2).z("us.device_hours"))[0]
    )
    assert found["llm"].deadline == 2


def test_every_drawn_assumption_is_in_the_register_and_moves_the_answer_only_by_name():
    asked = demand(hours(8 * months.HOURS, growth_frac_per_year=Quantiles(0.0, 0.2, 0.5)))
    supply = Supply((buy(1), Option("rent", (Part(H100, 2, "rent"),))))
    plan = make_plan(asked, supply, None, rate, count=8)
    names = {a.name for a in plan.register}
    assert {"work.growth_frac_per_year", "energy_usd_per_kwh", "dgx-h100.node_usd",
            "h100-sxm5-80gb.rent_usd_per_gpu_hour"} <= names  # fmt: skip
    swings = {s.assumption.name: s for s in tornado(plan).swings}
    rent = swings["h100-sxm5-80gb.rent_usd_per_gpu_hour"]
    if plan.chosen.candidate.name == "rent":
        assert rent.high_usd > rent.low_usd
    assert all(isinstance(s.assumption, Assumption) for s in swings.values())
    widths = [abs(s.high_usd - s.low_usd) for s in tornado(plan).swings]
    assert widths == sorted(widths, reverse=True)
