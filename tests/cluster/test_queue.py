from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.queue import Waiting
from sim.cluster.state import JobState
from sim.spec.job import Job


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(1, 50)), min_size=1, max_size=400),
    st.randoms(use_true_random=False),
)
def test_queue_is_a_sorted_list(items: list[tuple[int, int, int]], random) -> None:
    queue = Waiting(lambda state: state.job.priority)
    plain: list[JobState] = []
    for number, (priority, gpus, limit_s) in enumerate(items):
        state = JobState(Job("", 0.0, gpus, 1.0, float(limit_s), priority=priority), number)
        queue.add(state)
        plain.append(state)
        if random.random() < 0.3:
            gone = plain.pop(random.randrange(len(plain)))
            queue.remove(gone)
    plain.sort(key=lambda state: (state.job.priority, state.number))
    assert list(queue) == plain
    assert len(queue) == len(plain)
    assert queue.first is (plain[0] if plain else None)
    assert queue.last is (plain[-1] if plain else None)
    for short_s, narrow in ((100.0, 0), (20.0, 2)):
        found, state = [], queue.after(None, 5, short_s, narrow)
        while state is not None:
            found.append(state)
            state = queue.after(state, 5, short_s, narrow)
        fits = [s for s in plain if s.gpus <= 5 and (s.limit_left_s <= short_s or s.gpus <= narrow)]
        assert found == fits
