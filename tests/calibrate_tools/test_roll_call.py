"""The roll of a launched run, on a store in memory: who fell is named, who left is not."""

from __future__ import annotations

import threading
import time

from calibrate.roll_call import RollCall, account, join


class Store:
    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.gone = False

    def set(self, key: str, text: str) -> None:
        self._here()
        self.values[key] = text.encode()

    def get(self, key: str) -> bytes:
        self._here()
        return self.values[key]

    def check(self, keys: list[str]) -> bool:
        self._here()
        return all(key in self.values for key in keys)

    def _here(self) -> None:
        if self.gone:
            raise RuntimeError("connection refused")


def roll(store: Store, rank: int, **more: object) -> RollCall:
    return RollCall(store, rank, 4, host=f"node{rank}", beat_s=0.02, patience_s=0.2, **more)


def test_the_silent_rank_is_named_and_the_leaver_is_not() -> None:
    store = Store()
    first, alive, leaver, fallen = (roll(store, rank) for rank in range(4))
    for one in (first, alive, leaver):
        one.start()
    fallen._call()
    leaver.leave()
    assert account(first) == "; fallen: rank 3 on node3"
    first.leave()
    alive.leave()


def test_ranks_that_never_called_and_a_store_that_is_gone() -> None:
    store = Store()
    first = roll(store, 0)
    first.start()
    assert set(first.absent()) == {1, 2, 3}
    first.leave()
    store.gone = True
    assert account(first) == "; the host that kept the roll is gone too"
    assert account(None) == ""


def test_a_hang_is_ended_with_the_name_of_its_cause() -> None:
    store, told, ended = Store(), [], threading.Event()

    def end(text: str) -> None:
        told.append(text)
        ended.set()

    roll(store, 2)._call()
    watching = roll(store, 0, hang_s=0.1, end=end)
    watching.start()
    assert ended.wait(5)
    watching.leave()
    assert "rank 2 on node2" in told[0]


def test_a_rank_whose_store_is_gone_ends_too() -> None:
    store, told, ended = Store(), [], threading.Event()
    watching = roll(store, 1, hang_s=0.05, end=lambda text: (told.append(text), ended.set()))
    watching.start()
    store.gone = True
    assert ended.wait(5)
    assert "the host that kept the roll is gone" in told[0]


def test_a_quiet_end_is_no_hang() -> None:
    store, told = Store(), []
    watching = roll(store, 0, hang_s=0.05, end=told.append)
    other = roll(store, 1)
    watching.start()
    other.start()
    other.leave()
    time.sleep(0.3)
    watching.leave()
    assert told == []


def test_without_a_meeting_place_there_is_no_roll() -> None:
    assert join(None, {}) is None
