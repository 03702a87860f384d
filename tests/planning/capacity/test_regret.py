"""The least-regret choice, beside the published example of interval planning."""

import numpy as np
import pytest

from sim.planning.capacity.regret import least_regret, spend_regret
from sim.spec.quantiles import Z90, Quantiles


def test_netflix_example_of_interval_planning():
    """service-capacity-modeling's README: needs of $6.3k / $17.9k / $72.2k (P5, P50, P95), least regret at $21.4k.

    Their choice is among discrete clusters; ours is the minimum over all sums, from the three published quantiles.
    """
    z95 = 1.6448536269514722
    wider = Z90 / z95
    low, mid, high = 6.3, 17.9, 72.2
    needed = Quantiles(mid * (low / mid) ** wider, mid, mid * (high / mid) ** wider).at(
        np.random.default_rng(1).standard_normal(100_000)
    )
    assert np.quantile(needed, [0.05, 0.5, 0.95]) == pytest.approx([low, mid, high], rel=0.02)
    sums = np.linspace(10, 60, 251)
    regrets = [spend_regret(s, needed).mean() for s in sums]
    assert sums[int(np.argmin(regrets))] == pytest.approx(21.4, rel=0.05)


def test_without_uncertainty_the_cheapest_has_no_regret():
    loss = np.array([[3e6], [2e6], [5e6]])
    choice = least_regret(loss, np.zeros_like(loss))
    assert choice.chosen == 1
    assert choice.regret[1] == 0
    assert not choice.too_close


def test_two_equal_options_are_too_close_to_call():
    rng = np.random.default_rng(0)
    loss = rng.normal(10e6, 2e6, (2, 200))
    choice = least_regret(loss, np.zeros_like(loss))
    assert choice.too_close
    assert set(choice.contenders) == {0, 1}


def test_shortage_is_regretted_more_than_spending():
    spend = np.array([[4e6], [2e6]])
    penalty = np.array([[0.0], [1.8e6]])
    assert least_regret(spend + penalty * 0, np.zeros_like(spend)).chosen == 1
    assert least_regret(spend + penalty, penalty).chosen == 0  # 2 + 1.8 * 1.25 is more than 4
