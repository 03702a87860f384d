"""Simulations in worker processes: partial and whole answers, refusals, calling off, one run for many visitors."""

from __future__ import annotations

from typing import Any

from app.web.jobs import Office
from app.web.state import scenario_text


def request(text: str, **more: Any) -> dict[str, Any]:
    return {"verb": "cluster", "name": "small.toml", "text": text, "changes": [], "uploaded": True} | more


def test_an_answer_comes_first_in_part_and_then_whole(small: str) -> None:
    job = Office().ask(request(small), "a")
    assert job.wait(60)
    assert (job.state, job.share) == ("done", 1.0)
    assert job.document is not None
    assert job.document["replications"] == 3


def test_one_question_is_simulated_once_and_stopped_when_nobody_waits(small: str) -> None:
    office = Office()
    slow = request(small.replace('"1 d"', '"400 d"').replace("most = 3", "most = 900"))
    job = office.ask(slow, "a")
    assert office.ask(slow, "b") is job
    office.leave(job, "a")
    assert not job.over
    office.leave(job, "b")
    assert job.state == "cancelled"
    assert office.ask(slow, "c") is not job
    office.leave(office.ask(slow, "c"), "c")


def test_a_refusal_is_told_in_words(small: str) -> None:
    by_flop = scenario_text("article-eight-devices")
    for question, told in (
        (request("name ="), "not valid TOML"),
        (request(small.replace("[jobs]", '[jobs]\ntrace = "/etc/passwd"', 1)), "may name no file"),
        (request(by_flop, verb="search", uploaded=False), "known only by its FLOP"),
    ):
        job = Office().ask(question, "a")
        assert job.wait(60)
        assert job.state == "refused"
        assert told in " ".join(job.refused)


def test_a_full_house_waits_and_few_answers_are_kept() -> None:
    office = Office(slots=1, kept=1)
    jobs = [office.ask(request("name ="), str(n)) for n in range(3)]
    assert len({id(job) for job in jobs}) == 1
    for number in range(2):
        assert office.ask(request(f"name = {number}"), "a").wait(60)
    assert len(office._jobs) <= 2
