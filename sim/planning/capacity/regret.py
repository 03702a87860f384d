"""Which option one would least regret, whichever of the worlds comes true.

In hindsight one option was best in each world. Regret is how much worse another one did there; missing capacity is
regretted more than spending too much, as in Netflix' service-capacity-modeling (spend above the best counts once,
below it 1.25 times, to the power 1.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
OVER, UNDER, POWER = 1.0, 1.25, 1.2
"""Netflix service-capacity-modeling, interface.py: over_provision_cost, under_provision_cost, exponent of spend."""
RESAMPLES = 400
CLOSE = 0.95
"""A choice that wins in fewer resamples than this is called too close."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The ranking of options. Arrays have one entry an option."""

    regret: Array
    """Mean regret over the worlds."""
    order: tuple[int, ...]
    """Options by rising regret."""
    best_share: Array
    """Share of the worlds in which each option was the best one."""
    wins: Array
    """Share of resampled sets of worlds in which each option has the least mean regret."""

    @property
    def chosen(self) -> int:
        """The option of least regret."""
        return self.order[0]

    @property
    def too_close(self) -> bool:
        """Whether another option could as well have come first."""
        return bool(self.wins[self.chosen] < CLOSE)

    @property
    def contenders(self) -> tuple[int, ...]:
        """Options that come first in at least one resample of twenty."""
        return tuple(i for i in self.order if self.wins[i] >= 1 - CLOSE)


def spend_regret(spent: Array, needed: Array, power: float = POWER) -> Array:
    """Regret of having ``spent`` where ``needed`` would have been right (Netflix' rule for spend)."""
    over, under = np.maximum(spent - needed, 0) * OVER, np.maximum(needed - spent, 0) * UNDER
    return np.asarray(over**power + under**power)


def least_regret(loss: Array, penalty: Array, seed: int = 0, power: float = POWER) -> Choice:
    """Rank options by mean regret.

    ``loss``: what each option costs in each world, shape (options, draws): money, with what is short or late priced
    in; ``penalty``: the part of it that stands for shortage and delay, which counts ``UNDER`` times. Regret is
    measured in millions, so that the power weighs like that of a yearly budget.
    """
    weighted, regret = _regrets(loss, penalty, power)
    mean = regret.mean(axis=1)
    order = tuple(int(i) for i in np.argsort(mean, kind="stable"))
    winner = np.bincount(weighted.argmin(axis=0), minlength=len(loss)) / loss.shape[1]
    picks = np.random.default_rng([seed, 31]).integers(0, loss.shape[1], (RESAMPLES, loss.shape[1]))
    counts = np.zeros((RESAMPLES, loss.shape[1]))
    for row, chosen in zip(counts, picks, strict=True):
        row += np.bincount(chosen, minlength=loss.shape[1])
    resampled = counts @ regret.T / loss.shape[1]
    wins = np.bincount(resampled.argmin(axis=1), minlength=len(loss)) / RESAMPLES
    return Choice(mean, order, winner, wins)


def mean_regret(loss: Array, penalty: Array, power: float = POWER) -> Array:
    """Mean regret of each option over the worlds; see :func:`least_regret`."""
    return np.asarray(_regrets(loss, penalty, power)[1].mean(axis=1))


def _regrets(loss: Array, penalty: Array, power: float) -> tuple[Array, Array]:
    """Weighted loss, and regret in millions to the ``power``; both shape (options, draws)."""
    weighted = (loss - penalty) * OVER + penalty * UNDER
    return weighted, (np.maximum(weighted - weighted.min(axis=0), 0.0) / 1e6) ** power
