"""Which option leads, and how surely: more worlds and more simulated months where the race is close.

A photo finish costs more than a walk-over: the first look is cheap and the same for all, and only those who are still
neck and neck are looked at again (in the manner of optimal computing budget allocation; Chen, Lin, Yücesan and Chick
2000, Discrete Event Dynamic Systems 10).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.planning.capacity.draws import Draws
from sim.planning.capacity.evaluate import Candidate, Evaluation, evaluate
from sim.planning.capacity.fluid import Rate
from sim.planning.capacity.needs import Need, needs
from sim.planning.capacity.rates import reference_rates
from sim.planning.capacity.regret import Choice, least_regret
from sim.planning.capacity.simulate import Played, mean_of, measured, play_option
from sim.spec.demand import Demand
from sim.spec.prices import Assumption
from sim.spec.supply import Supply
from sim.statistics.streams import Streams

PLAYED = 4
"""Options that are simulated at first: those of least regret in the closed form."""
REPLICATIONS, ROUNDS = 3, 3
"""Simulated months of each in the first round; both these and the worlds are doubled in each further one."""
DECIDED = 0.99
"""A choice that comes first in so many resamples needs no further round."""
RUNNER = 0.01
"""An option that comes first in so many resamples is still in the race."""
RESETS = 8
"""Sets of simulated months drawn again (with replacement) to see what their luck does to the ranking."""


@dataclass(frozen=True, slots=True)
class Course:
    """What all options have in common."""

    demand: Demand
    supply: Supply
    general: Mapping[str, Assumption]
    rate: Rate

    def tried(
        self, candidates: Sequence[Candidate], draws: Draws, played: Mapping[str, Played]
    ) -> tuple[tuple[Need, ...], list[Evaluation]]:
        """The needs, and each candidate, in these worlds; with the shares that were simulated where they were."""
        wanted = needs(self.demand, draws)
        reference = reference_rates(self.demand.programmes, self.rate)
        return wanted, [
            evaluate(c, self.demand, self.supply, wanted, self.world(c, played), draws, self.rate, reference)
            for c in candidates
        ]

    def world(self, candidate: Candidate, played: Mapping[str, Played]) -> Mapping[str, Assumption]:
        """The general assumptions as they hold for one option."""
        found = played.get(candidate.name)
        return self.general if found is None else {**self.general, **measured(self.general, found)}


@dataclass(frozen=True, slots=True)
class Finish:
    """How the race ended; ``evaluations`` in the order in which the options came."""

    needs: tuple[Need, ...]
    evaluations: tuple[Evaluation, ...]
    choice: Choice
    played: Mapping[str, Played]
    replications: int
    """Simulated months of the options that raced to the end."""


def run_race(
    course: Course,
    wanted: tuple[Need, ...],
    possible: Sequence[Evaluation],
    first: Choice,
    seed: int,
    tell: Callable[[str], None],
) -> Finish:
    """Simulate the best of ``possible`` (ranked ``first`` by the closed form) until one leads for certain or
    :data:`ROUNDS` rounds are over."""
    candidates = [e.candidate for e in possible]
    worlds = len(possible[0].loss_usd)
    plays: dict[str, list[Played]] = {}
    runners: Sequence[int] = first.order[:PLAYED]
    for turn in range(ROUNDS):
        months = REPLICATIONS * 2**turn
        for number in runners:
            tell(f"simulating {candidates[number].name} ({months} months)")
            _play(plays, possible[number], wanted, course.rate, seed, months)
        draws = Draws(worlds * 2**turn, seed)
        played = {name: mean_of(rows) for name, rows in plays.items()}
        needed, final = course.tried(candidates, draws, played)
        choice = _choice(course, final, draws, plays)
        runners = [i for i in choice.order if choice.wins[i] >= RUNNER]
        if choice.wins[choice.chosen] >= DECIDED or len(runners) == 1:
            break
    return Finish(needed, tuple(final), choice, played, months)


def _play(
    plays: dict[str, list[Played]],
    option: Evaluation,
    wanted: Sequence[Need],
    rate: Rate,
    seed: int,
    months: int,
) -> None:
    """Simulate an option until it has ``months`` replications; they bear the same numbers for all options, and so the
    same luck (common random numbers)."""
    name = option.candidate.name
    for number in range(len(plays.get(name, ())), months):
        found = play_option(option, wanted, rate, Streams(seed).child("plan", number))
        if found is None:
            return
        plays.setdefault(name, []).append(found)


def rank(possible: Sequence[Evaluation], seed: int) -> Choice:
    """Order by regret."""
    loss, penalty = np.stack([e.loss_usd for e in possible]), np.stack([e.penalty_usd for e in possible])
    return least_regret(loss, penalty, seed)


def _choice(
    course: Course, final: Sequence[Evaluation], draws: Draws, plays: Mapping[str, Sequence[Played]]
) -> Choice:
    """The ranking, whose ``wins`` count the luck of the simulated months beside that of the worlds."""
    choice = rank(final, draws.seed)
    if not plays:
        return choice
    wins = np.zeros(len(final))
    for number in range(RESETS):
        random = Streams(draws.seed).generator("months again", number)
        picks = random.integers(2**31, size=max(map(len, plays.values())))
        again = {
            name: mean_of([rows[pick % len(rows)] for pick in picks[: len(rows)]])
            for name, rows in plays.items()
        }
        changed = [i for i, e in enumerate(final) if e.candidate.name in again]
        _, tried = course.tried([final[i].candidate for i in changed], draws, again)
        field = list(final)
        for i, e in zip(changed, tried, strict=True):
            field[i] = e
        wins += rank(field, draws.seed).wins / RESETS
    return replace(choice, wins=wins)
