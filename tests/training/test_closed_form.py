"""The closed form against the engine, plan by plan, wherever it claims to hold."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.training.closed_form import Plans, holds, passes_s, step_s
from sim.training.engine import play
from sim.training.program import build
from sim.training.program_parts import ChunkCost, Options, StepCost


def engine_s(plan: Plans, schedule: str, tensor_frac: float = 0.0) -> float:
    """The same step, played; ``tensor_frac`` of every pass is spent on tensor messages."""
    p, m, v = int(plan.stages), int(plan.micro_batches), int(plan.virtual_stages)
    kernels = 1 - tensor_frac
    chunk = ChunkCost(
        plan.forward_s * kernels,
        plan.backward_s * kernels,
        plan.forward_s * tensor_frac,
        plan.backward_s * tensor_frac,
        plan.weight_s * kernels,
    )
    cost = StepCost(
        [[chunk] * v] * p,
        plan.send_s,
        [[plan.gradients_s] * v] * p,
        [plan.optimizer_s] * p,
        [plan.parameters_s] * p,
        straggler_s=plan.straggler_s,
    )
    return play(
        build(cost, Options(p, m, v, schedule, bool(plan.overlap_gradients), bool(plan.overlap_pipeline)))
    ).step_s


seconds = st.floats(0.05, 5.0)


@st.composite
def some_plans(draw: st.DrawFn, schedule: str) -> Plans:
    p = draw(st.integers(1, 8))
    v = draw(st.integers(1, 4)) if schedule == "1f1b" and p > 1 else 1
    low = p if v > 1 or schedule == "zb-h1" else 1
    m = draw(st.one_of(st.integers(1, 5).map(lambda k: k * p), st.integers(low, low + 20)))
    forward, backward = draw(seconds), draw(seconds)
    return Plans(
        p,
        m,
        v,
        forward,
        backward,
        backward * draw(st.floats(0, 1)) if schedule == "zb-h1" else 0.0,
        0.0
        if schedule == "zb-h1"
        else min(forward, backward) * draw(st.sampled_from([0.0, 0.01, 0.1, 0.4, 1.0])),
        draw(st.sampled_from([0.0, 0.3, 3.0, 30.0])),
        draw(st.sampled_from([0.0, 0.2])),
        draw(st.sampled_from([0.0, 0.1])),
        draw(st.sampled_from([0.0, 0.4])),
        draw(st.booleans()),
        draw(st.booleans()),
    )


@pytest.mark.parametrize("schedule", ["1f1b", "gpipe", "zb-h1"])
def test_it_equals_the_engine_wherever_it_holds(schedule: str) -> None:
    """The promise is 0.1 %; what is kept is rounding."""
    held = []

    @settings(max_examples=250, deadline=None)
    @given(plan=some_plans(schedule), tensor=st.sampled_from([0.0, 0.2]))
    def check(plan: Plans, tensor: float) -> None:
        held.append(bool(holds(plan, schedule)))
        if held[-1]:
            frac = 0.0 if schedule == "zb-h1" else tensor
            assert float(step_s(plan, schedule)) == pytest.approx(engine_s(plan, schedule, frac), rel=1e-9)

    check()
    assert sum(held) > 0.6 * len(held), "the closed form claims too little to be tested"


@pytest.mark.parametrize(("p", "m", "v"), [(16, 64, 1), (16, 16, 8), (16, 64, 2), (32, 96, 3), (64, 64, 1)])
@pytest.mark.parametrize("overlap", [True, False])
def test_large_plans(p: int, m: int, v: int, overlap: bool) -> None:
    plan = Plans(p, m, v, 1.0, 2.1, 0.0, 0.02, 4.0, 0.0, 0.1, 0.2, True, overlap)
    assert bool(holds(plan))
    assert float(step_s(plan)) == pytest.approx(engine_s(plan, "1f1b"), rel=1e-9)


def test_it_does_not_claim_what_it_gets_wrong() -> None:
    """The refusals are not idle: in each of these the formula is off by more than it promises."""
    cases = {
        "messages longer than a pass": (Plans(4, 16, 1, 1.0, 1.0, 0.0, 2.0), "gpipe"),
        "interleaving of an odd number with messages": (Plans(4, 9, 3, 1.0, 1.0, 0.0, 0.2), "1f1b"),
        "few micro-batches under ZB-H1": (Plans(8, 3, 1, 1.0, 2.0, 1.0), "zb-h1"),
        "messages under ZB-H1": (Plans(4, 8, 1, 1.0, 2.0, 0.5, 0.3), "zb-h1"),
    }
    for name, (plan, schedule) in cases.items():
        assert not bool(holds(plan, schedule)), name
        assert abs(float(step_s(plan, schedule)) / engine_s(plan, schedule) - 1) > 1e-3, name
    assert not bool(holds(Plans(4, 8, 2, 1.0, 2.0), "gpipe"))
    assert not bool(holds(Plans(4, 2, 2, 1.0, 2.0)))
    with pytest.raises(ValueError, match="no closed form"):
        passes_s(Plans(4, 8, 1, 1.0, 2.0), "dualpipe")


def test_arrays_equal_scalars() -> None:
    rng = np.random.default_rng(3)
    p, k, v = rng.integers(2, 9, 40), rng.integers(1, 5, 40), rng.integers(1, 5, 40)
    forward, send = rng.uniform(0.5, 2, 40), rng.uniform(0, 0.2, 40)
    blocking = rng.integers(0, 2, 40).astype(bool)
    together = Plans(p, p * k, v, forward, 2 * forward, 0.0, send, 1.5, 0.0, 0.1, 0.1, True, blocking)
    whole, flags = step_s(together), holds(together)
    assert whole.shape == flags.shape == (40,)
    for n in range(40):
        one = Plans(
            p[n],
            p[n] * k[n],
            v[n],
            forward[n],
            2 * forward[n],
            0.0,
            send[n],
            1.5,
            0.0,
            0.1,
            0.1,
            True,
            blocking[n],
        )
        assert float(step_s(one)) == whole[n]
        assert bool(holds(one)) == flags[n]


@settings(max_examples=100, deadline=None)
@given(plan=some_plans("1f1b"), factor=st.floats(1.0, 3.0))
def test_nothing_gets_faster_when_work_or_messages_take_longer(plan: Plans, factor: float) -> None:
    base = float(step_s(plan))
    for name in ("forward_s", "backward_s", "send_s", "gradients_s", "straggler_s", "optimizer_s"):
        values = plan.arrays()
        values[name] = values[name] * factor
        assert float(step_s(Plans(**values))) >= base * (1 - 1e-12)


def test_a_hundred_thousand_plans_a_second_on_a_busy_machine() -> None:
    """Generous, so that a busy machine does not fail it: an idle core does millions."""
    n = 100_000
    rng = np.random.default_rng(0)
    p = 2 ** rng.integers(0, 6, n)
    plans = Plans(
        p, p * rng.integers(1, 9, n), 1 + rng.integers(0, 4, n), rng.uniform(0.1, 1, n), 1.0, 0.0, 0.01, 0.5
    )
    begin = time.process_time()
    step_s(plans)
    assert time.process_time() - begin < 1.0
