"""Points are worked out once, by whichever executor, through kills and dead workers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.killed_sweeps import study
from sim.planning.store import Store
from sim.planning.sweep.executors import local, ray_cluster, serial
from sim.planning.sweep.points import FUNCTION, point
from sim.planning.sweep.run import Point, code_version, content_key, run_points
from sim.planning.sweep.tables import csv_text, table

ROOT = Path(__file__).resolve().parents[2]
ARTICLE = ROOT / "scenarios" / "article-eight-devices.toml"

DEADLY = """\
import os
import signal
from pathlib import Path


def work(payload):
    mark = Path(payload["folder"]) / "died"
    if payload["number"] in payload["deadly"] or (payload["number"] == payload["once"] and not mark.exists()):
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return {"number": payload["number"]}
"""


def deadly_points(folder: Path, monkeypatch: pytest.MonkeyPatch, **deaths: object) -> list[Point]:
    (folder / "deadly_work.py").write_text(DEADLY, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
    told = {"folder": str(folder), "deadly": [], "once": -1} | deaths
    return [Point(f"p{n}", told | {"number": n}) for n in range(6)]


def test_a_sweep_killed_again_and_again_loses_nothing_and_repeats_nothing() -> None:
    verdict = study(150, 3, "local", seconds=0.02, longest_s=1.0, seed=5)
    assert (verdict.lost, verdict.redone, verdict.missing) == (0, 0, 0)
    assert verdict.kills >= 1  # the first one always: it comes before the work can be done


def test_known_points_and_equal_keys_are_not_worked_out_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def counting(function: str, tasks):
        asked.extend(task.key for task in tasks)
        return serial(function, tasks)

    points = [Point("a", {"x": 1}), Point("b", {"x": 2}), Point("a", {"x": 1})]
    with Store(tmp_path / "s") as store:
        first = run_points(points, "json:dumps", store, counting)
        again = run_points(points, "json:dumps", store, counting)
    assert asked == ["a", "b"]
    assert first == again == ['{"x": 1}', '{"x": 2}', '{"x": 1}']


def test_a_worker_that_dies_once_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = deadly_points(tmp_path, monkeypatch, once=2)
    with Store(tmp_path / "s") as store:
        answers = run_points(points, "deadly_work:work", store, local(2))
    assert [answer["number"] for answer in answers] == list(range(6))


def test_a_point_that_always_kills_its_worker_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = deadly_points(tmp_path, monkeypatch, deadly=[1])
    with Store(tmp_path / "s") as store:
        answers = run_points(points, "deadly_work:work", store, local(2))
    assert answers[1] == {"outcome": "failed", "reason": "the process that worked it out died"}
    assert [answer.get("number") for answer in answers] == [0, None, 2, 3, 4, 5]


def test_a_pool_gives_the_same_table_as_one_process(tmp_path: Path) -> None:
    settings = [(("training.global_batch", str(8 * n)),) for n in range(1, 6)] + [
        (("training.global_batch", "-1"),)
    ]
    text = ARTICLE.read_text(encoding="utf-8")
    asked = [point(text, "article", (), one) for one in settings]
    tables = []
    for name, worker in (("one", serial), ("two", local(2))):
        with Store(tmp_path / name) as store:
            tables.append(csv_text(table(settings, run_points(asked, FUNCTION, store, worker))))
    assert tables[0] == tables[1]
    assert "refused" in tables[0]


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore")
def test_ray_gives_the_same_table_and_outlives_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra: ray)")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    dying = deadly_points(tmp_path, monkeypatch, once=2)
    settings = [(("training.global_batch", str(8 * n)),) for n in range(1, 4)]
    asked = [point(ARTICLE.read_text(encoding="utf-8"), "article", (), one) for one in settings]
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        with Store(tmp_path / "ray") as store:
            answers = run_points(dying, "deadly_work:work", store, ray_cluster(2))
            far = csv_text(table(settings, run_points(asked, FUNCTION, store, ray_cluster(2))))
    finally:
        ray.shutdown()
    with Store(tmp_path / "near") as store:
        near = csv_text(table(settings, run_points(asked, FUNCTION, store, serial)))
    assert (tmp_path / "died").exists()
    assert [answer["number"] for answer in answers] == list(range(6))
    assert far == near


def test_a_key_names_the_question_and_the_code() -> None:
    text = ARTICLE.read_text(encoding="utf-8")
    plain = point(text, "a", (), ())
    assert plain.key == point(text, "elsewhere", (), ()).key
    assert plain.key != point(text, "a", ("seed=9",), ()).key
    assert content_key("x") != content_key("y")
    assert code_version().startswith("0.")
    assert json.loads(json.dumps(plain.payload)) == plain.payload
