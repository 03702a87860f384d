"""What a scheduling policy is, and what it may look at.

A policy is like a doorman with a list: he sees who waits, who is inside and how many places are free, and says who goes
in next. He never opens the door himself: the engine does, and tells him whether it worked.

To write one, subclass ``Policy`` or wrap a plain function in ``FunctionPolicy``::

    def shortest_queue_first(view):
        for state in view.waiting:
            if not (yield Start(state)):
                return

Decisions are carried out one by one as they are yielded, and the view is up to date after each. The value of the
``yield`` is True where the decision was carried out, and False where the devices are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sim.cluster.queue import Waiting
from sim.cluster.state import JobState
from sim.results.cluster_log import Placed

if TYPE_CHECKING:
    from sim.cluster.nodes import Ground
    from sim.cluster.usage import Usage


class PolicyError(Exception):
    """A policy raised, went round in circles, or gave away what was not free; names the policy and the job."""


class Start(NamedTuple):
    """Let a waiting job run: where the placement rule says, in one pool, or on exactly these devices."""

    state: JobState
    gpus: int | None = None
    """For an elastic job: with how many devices, instead of those asked for."""
    pool: int | None = None
    placed: Placed | None = None


class Preempt(NamedTuple):
    """Take the devices of a running job away and put it back into the queue."""

    state: JobState


class Resize(NamedTuple):
    """Go on with more or fewer devices; work done is kept. False (and nothing changed) where they do not fit."""

    state: JobState
    gpus: int


class Cancel(NamedTuple):
    """Turn a waiting job away for good (a loss system; a deadline that cannot be met)."""

    state: JobState


class Wake(NamedTuple):
    """Ask again at this time, if nothing happens before."""

    at_s: float


Decision = Start | Preempt | Resize | Cancel | Wake
Decisions = Iterable[Decision] | Generator[Decision, bool, None]


class View:
    """What a policy sees; always as things stand now, after the decisions so far. To be read only."""

    __slots__ = ("_ground", "_running", "memory", "now_s", "releases", "usage", "waiting")

    def __init__(
        self, ground: Ground, waiting: Waiting, running: dict[int, JobState] | list[Any], usage: Usage
    ) -> None:
        self.now_s = 0.0
        self.waiting = waiting
        """Waiting jobs in the order of the policy's ``key``."""
        self.usage = usage
        """Who holds how much and has used how much, by ``group``."""
        self.memory: dict[Any, Any] = {}
        """The policy's own notes from earlier passes; empty at the start of a run."""
        self.releases = 0
        """How often devices have become free: where it stands still, who did not fit does not fit."""
        self._ground = ground
        self._running = running

    @property
    def free_gpus(self) -> float:
        """Free devices on nodes that are up; a gang may still not fit (fragmentation, other pools)."""
        return self._ground.free_gpus

    @property
    def total_gpus(self) -> float:
        """Devices owned, down or not."""
        return self._ground.total_gpus

    @property
    def up_gpus(self) -> float:
        """Devices owned but for those that are down."""
        return self._ground.total_gpus - self._ground.down_gpus

    @property
    def ground(self) -> Ground:
        """The nodes, for policies that choose devices themselves."""
        return self._ground

    @property
    def running(self) -> Iterator[JobState]:
        """Running jobs, in the order of ``running_key`` (of starting, where the policy has none), as they stand now."""
        if isinstance(self._running, dict):
            return iter(tuple(self._running.values()))
        return iter([card[2] for card in self._running])


class Policy:
    """A scheduling policy: the members here are those of strict first come, first served.

    Policies are frozen; what one must remember from pass to pass goes into ``view.memory``.
    """

    name = "policy"
    clairvoyant = False
    """Whether it looks at true durations (``end_s``, ``remaining_s``, ``duration_s``), which no real scheduler
    knows."""
    idle_passes = False
    """Whether to ask it even when nobody waits (elastic policies)."""
    metered = False
    """Whether it reads ``view.usage``."""
    grouped = False
    """Whether it also reads the waiting jobs of each group, ``view.usage.groups[name].waiting``."""
    guarded = False
    """Whether it is not rackcast's own: each decision has a time limit on the clock of the wall."""
    half_life_s = float("inf")
    """Half-life of the usage that ``view.usage`` remembers."""

    def key(self, state: JobState) -> Any:
        """Order of the queue, ties by order of submission; read when a job joins the queue."""
        return state.number

    @property
    def running_key(self) -> Callable[[JobState], Any] | None:
        """Order of ``view.running``, constant through a stretch; None = order of starting."""
        return None

    def group(self, state: JobState) -> str:
        """Whose usage a job counts as."""
        return state.job.queue

    def decide(self, view: View) -> Decisions:
        """Strict order: start while the head fits."""
        head = view.waiting.first
        if head is None or too_many(view, head):
            return ()
        if view.memory.get("blocked") == (head.number, view.releases):
            return ()  # a head that did not fit when devices were last freed does not fit now
        return self._serve(view, head)

    def _serve(self, view: View, head: JobState | None) -> Generator[Decision, bool, None]:
        waiting = view.waiting
        while head is not None and not too_many(view, head):
            if not (yield Start(head)):
                view.memory["blocked"] = (head.number, view.releases)
                return
            head = waiting.first


def too_many(view: View, state: JobState) -> bool:
    """Whether a gang of whole devices asks for more than are free: then it need not be tried."""
    return state.gpus > view.free_gpus and state.job.gpu_share_frac == 1


@dataclass(frozen=True)
class FunctionPolicy(Policy):
    """A policy from a function that takes a view and yields (or returns a list of) decisions."""

    function: Callable[[View], Decisions]
    order: Callable[[JobState], Any] = lambda state: state.number
    clairvoyant: bool = True
    idle_passes: bool = False
    metered: bool = True
    grouped: bool = True
    guarded: bool = True

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the function."""
        return getattr(self.function, "__name__", "function")

    def key(self, state: JobState) -> Any:
        """The order given."""
        return self.order(state)

    def decide(self, view: View) -> Decisions:
        """Ask the function."""
        return self.function(view)
