"""Recipes for the jobs of a cluster: how often, how large, how long, whose. A cook (``sim.mixes``) makes jobs of them.

Four recipes cover what clusters run: a ``Mix`` of unrelated jobs (fitted to a history or written by hand), a ``Search``
over hyper-parameters, a ``Cycle`` of training with evaluations, and a ``Service`` whose replicas follow the day.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.spec.fields import choice, count, fraction, part, quantity, switch, text
from sim.spec.workload import Training

HOURS_PER_DAY, DAYS_PER_WEEK = 24, 7
HOURS_PER_WEEK = HOURS_PER_DAY * DAYS_PER_WEEK
SEARCH_RULES = ("random", "successive-halving", "hyperband")


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When jobs come: a Poisson process whose rate follows the clock, the week, chance and growth.

    In each hour the rate is ``rate_per_s`` times the factors of its hour and weekday, times a gamma variable of mean
    1 and coefficient of variation ``burst_cv`` (a Cox process: hourly counts are negative binomial).
    """

    rate_per_s: float = quantity("mean rate of submissions at time 0", above=True)
    by_hour: tuple[float, ...] = quantity(
        "24 factors of the hours of the day, scaled to mean 1; empty = alike", ()
    )
    by_weekday: tuple[float, ...] = quantity("7 factors from Monday on, scaled to mean 1; empty = alike", ())
    burst_cv: float = quantity("spread of the rate from hour to hour, as standard deviation over mean", 0.0)
    growth_per_year: float = quantity(
        "factor by which the rate grows in a year, evenly compounded", 1.0, above=True
    )
    start_hour: int = count("hour of the week at time 0; 0 = Monday 00:00", 0, low=0, high=HOURS_PER_WEEK - 1)

    def __post_init__(self) -> None:
        for name, length in (("by_hour", HOURS_PER_DAY), ("by_weekday", DAYS_PER_WEEK)):
            factors = getattr(self, name)
            if len(factors) not in (0, length):
                raise ValueError(f"{name} has {len(factors)} factors: expected {length} or none")
            if factors and sum(factors) <= 0:
                raise ValueError(f"{name}: expected a factor above 0")


@dataclass(frozen=True, slots=True)
class Size:
    """Jobs of one gang size: how common, and how long they run.

    Run times are log-normal (``median_s``, ``sigma``), or follow ``quantiles_s`` where those are given: values at
    evenly spaced probabilities from 0 to 1, joined by straight lines in the logarithm.
    """

    gpus: int = count("devices of the gang", low=0)
    weight: float = quantity("how common, relative to the other sizes", 1.0)
    median_s: float = quantity("median run time", 3600.0, above=True)
    sigma: float = quantity("standard deviation of the logarithm of the run time", 1.0)
    quantiles_s: tuple[float, ...] = quantity(
        "run times at evenly spaced probabilities from 0 to 1", (), above=True
    )
    gpu_share_frac: float = fraction("share of each device", 1.0)
    network_frac: float = fraction(
        "share of the run time that messages between nodes take which nothing hides, alone at full bandwidth",
        0.0,
    )
    min_gpus: int | None = count("fewest devices it can go on with; none = rigid", None)
    max_gpus: int | None = count("most devices it can use; none = rigid", None)
    kind: str = text("what such jobs are, for tables", "")

    def __post_init__(self) -> None:
        if not (self.min_gpus or self.gpus) <= self.gpus <= (self.max_gpus or self.gpus):
            raise ValueError(f"gpus {self.gpus}: expected min_gpus <= gpus <= max_gpus")
        if len(self.quantiles_s) == 1 or list(self.quantiles_s) != sorted(self.quantiles_s):
            raise ValueError("quantiles_s: expected at least two values that do not fall")


@dataclass(frozen=True, slots=True)
class Portion:
    """A name and how common it is."""

    name: str = text("the queue or the way a job ends")
    weight: float = quantity("how common, relative to the others", 1.0)


@dataclass(frozen=True, slots=True)
class Mix:
    """Unrelated jobs of many users. Size, user, queue, limit and outcome of a job are drawn apart from each other."""

    arrivals: Arrivals
    sizes: tuple[Size, ...]
    name: str = text("begins the names of its jobs")
    limit_share: float = fraction("share of jobs with a time limit", 0.0)
    limit_over_duration: tuple[float, ...] = quantity(
        "limit over run time at evenly spaced probabilities from 0 to 1", (1.0, 10.0), low=1.0
    )
    users: int = count("how many users", 1)
    user_zipf: float = quantity(
        "exponent of the users' activity: the k-th submits in proportion to k^-exponent", 1.0
    )
    queues: tuple[Portion, ...] = ()
    outcomes: tuple[Portion, ...] = ()
    """Ways to end, in the words of ``Job.outcome``; empty = all complete."""
    accelerator: str = text("kind of device the jobs must have; empty = any", "")
    priority: float = quantity("priority of the jobs; larger goes first", 0.0, low=-1e12)
    preemptible: bool = switch("the jobs may be preempted", True)
    deadline_over_duration: float | None = quantity(
        "deadline, as a multiple of the run time after submission; none = none", None, low=1.0
    )

    def __post_init__(self) -> None:
        for name in ("sizes", "queues", "outcomes"):
            group = getattr(self, name)
            if (name == "sizes" or group) and sum(one.weight for one in group) <= 0:
                raise ValueError(f"{name}: expected at least one with a weight above 0")
        if len(self.limit_over_duration) < 2 or list(self.limit_over_duration) != sorted(
            self.limit_over_duration
        ):
            raise ValueError("limit_over_duration: expected at least two values that do not fall")


@dataclass(frozen=True, slots=True)
class Search:
    """Studies of hyper-parameters: many short trials, most of them stopped early.

    Rules: ``random`` runs every trial to the end; ``successive-halving`` keeps the best 1/eta of each rung and gives
    them eta times as much (Jamieson and Talwalkar, AISTATS 2016); ``hyperband`` runs brackets of it that hedge
    between many short and few long trials (Li et al., JMLR 18, 2018, algorithm 1).
    """

    name: str = text("begins the names of its jobs")
    study_rate_per_s: float = quantity("rate at which studies start (Poisson)", above=True)
    rule: str = choice(SEARCH_RULES, "how trials are stopped", "hyperband")
    trials: int = count("trials of a study (random, successive-halving)", 64)
    gpus: int = count("devices of a trial", 1)
    full_s: float = quantity("run time of a trial that is not stopped", 3600.0, above=True)
    spread: float = quantity("standard deviation of the logarithm of a trial's speed", 0.2)
    eta: int = count("of each rung the best 1/eta go on", 3, low=2, high=100)
    most_over_least: float = quantity(
        "longest over shortest training of a trial (R of Hyperband)", 81.0, low=1.0
    )
    resume: bool = switch("a trial goes on from its checkpoint, rather than from its start", True)
    user: str = text("whose studies", "")
    queue: str = text("queue of the trials", "")


@dataclass(frozen=True, slots=True)
class Cycle:
    """A model trained again and again, each time followed by its evaluations."""

    name: str = text("begins the names of its jobs")
    every_s: float = quantity("from one training to the next", 86400.0, above=True)
    gpus: int = count("devices of a training", 8)
    train_s: float = quantity("median run time of a training", 6 * 3600.0, above=True)
    spread: float = quantity("standard deviation of the logarithm of run times", 0.1)
    evaluations: int = count("evaluations after each training, started together", 8, low=0)
    evaluation_gpus: int = count("devices of an evaluation", 1)
    evaluation_s: float = quantity("median run time of an evaluation", 900.0, above=True)
    evaluate_within_s: float | None = quantity(
        "deadline of the evaluations after the training; none = none", None
    )
    user: str = text("whose trainings", "")
    queue: str = text("queue of the jobs", "")


@dataclass(frozen=True, slots=True)
class Service:
    """A served model whose replicas follow the day: as many as a cosine between the night's and the peak's needs.

    Each replica is a job from the moment it is needed to the moment it is not; those of the night run all the time.
    """

    name: str = text("begins the names of its jobs")
    least_replicas: int = count("replicas in the quietest hour", 1, low=0)
    most_replicas: int = count("replicas in the busiest hour", 4)
    gpus: int = count("devices of a replica", 1)
    peak_hour: float = quantity("hour of the day with most traffic", 15.0, high=24.0)
    weekend_factor: float = quantity(
        "replicas at weekends over those of weekdays, above the least", 1.0, high=1.0
    )
    start_hour: int = count("hour of the week at time 0; 0 = Monday 00:00", 0, low=0, high=HOURS_PER_WEEK - 1)
    priority: float = quantity("priority of the replicas; larger goes first", 100.0, low=-1e12)
    queue: str = text("queue of the replicas", "")

    def __post_init__(self) -> None:
        if self.most_replicas < self.least_replicas:
            raise ValueError(
                f"most_replicas {self.most_replicas} is below least_replicas {self.least_replicas}"
            )


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Training runs whose length the step model gives: so many steps on so many devices."""

    name: str = text("begins the names of its jobs")
    training: Training = part("what is trained, as in [training]")
    nodes: int = count("nodes of the gang")
    steps: float = quantity("training steps", above=True)
    submit_s: float = quantity("when the first is handed in", 0.0)
    every_s: float = quantity("from one to the next; 0 = only one", 0.0)
    priority: float = quantity("priority; larger goes first", 0.0, low=-1e12)
    user: str = text("whose runs", "")
    queue: str = text("queue of the runs", "")


@dataclass(frozen=True, slots=True)
class Jobs:
    """All that is handed in to a cluster: a table of jobs, recipes, or both."""

    trace: str = text("table of jobs (CSV or Parquet, columns as in docs/importers.md)", "")
    mixes: tuple[Mix, ...] = field(default=())
    searches: tuple[Search, ...] = field(default=())
    cycles: tuple[Cycle, ...] = field(default=())
    services: tuple[Service, ...] = field(default=())
    runs: tuple[TrainingRun, ...] = field(default=())
