"""Every microbenchmark on this machine's CPU for a moment: rows of the right form, and quantities that make sense."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from calibrate.fit import fit_measurements
from calibrate.measure import Point, sweep
from calibrate.measurements import Measurements, table_faults
from calibrate.microbenchmarks.common import affordable, in_turn
from calibrate.parts import PARTS, TABLE_OF
from calibrate.stand_in import stand_in_devices
from sim.spec.device import Device
from sim.spec.profile import from_json, to_json
from sim.training.interval import NEEDS, PART_OF, _command

torch = pytest.importorskip("torch", reason="microbenchmarks need torch (extra: calibrate)")
pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def machine():
    from calibrate.environment import machine

    return replace(machine("cpu"), cache_bytes=2e6)  # small operands: this is about form, not about speed


@cache
def rows_once(part, machine):
    """Rows of a part, measured once for all tests that look at them."""
    return rows_of(part, machine)[0]


def layers_alone(machine, budget_s, seed, warn):
    """The part ``layer`` without the ranks that it would start."""
    from calibrate.microbenchmarks import layer
    from calibrate.microbenchmarks.common import rows_of

    points = layer._points(torch, machine, budget_s, None)
    for row in rows_of(machine, points, budget_s, seed, warn, rule=layer._rule(machine), least=len(points)):
        if layer._table(row) == "layer":
            yield row


def rows_of(part, machine, budget_s=0.2):
    from calibrate.microbenchmarks import (
        attention,
        compression,
        convolution,
        copies,
        embedding,
        host,
        launch,
        matmul,
        memory,
        optimizer,
        power,
    )

    measure = {
        "attention": attention.measure,
        "convolution": convolution.measure,
        "embedding": embedding.measure,
        "optimizer": optimizer.measure,
        "copies": copies.measure,
        "storage": host.storage,
        "loader": host.loader,
        "security": host.security,
        "compression": compression.measure,
        "memory": memory.measure,
        "power": power.measure,
        "matmul": matmul.measure,
        "launch": launch.measure,
        "layer": layers_alone,
    }[part]
    said = []
    return list(measure(machine, budget_s, 3, said.append)), said


ALONE = sorted(PARTS.keys() - {"copies", "power", "collective", "overlap"})
"""Parts that a CPU measures without starting ranks."""


@pytest.mark.parametrize("part", ALONE)
def test_a_part_gives_rows_of_its_table_however_short_the_budget(part, machine):
    rows = rows_once(part, machine)
    assert rows
    assert table_faults({TABLE_OF.get(part, part): rows}) == []
    assert all(row["gpu"] == machine.gpu for row in rows)


OPS = {
    "matmul": "gemm",
    "attention": "attention_decode",
    "memory": "memory_bound",
    "layer": "stack",
    "collective": "all_reduce",
    "loader": "storage",
}
"""A fit that a part brings, where it does not have the part's name."""


def exchanges(machine):
    """Rows of table ``collectives`` as two ranks would leave them: 20 us and 1 GB/s."""
    source = {**machine.columns, "system": "here", "nodes": 1, "gpus": 2, "fabric": "gloo", "repeats": 7}
    for power in range(10, 26):
        time_us = 20 + 2**power / 1e3
        times = dict.fromkeys(("time_us", "low_us", "high_us"), time_us)
        yield {**source, "collective": "all_reduce", "size_bytes": 2**power, **times}


SUGGESTED = {part for _, part in PART_OF}


@pytest.mark.parametrize("part", ["collective", "embedding", "layer", "loader", "matmul"])
def test_what_run_suggests_to_measure_can_be_fitted_alone(part, machine):
    """The very parts of the command that ``run`` prints, on a device without a datasheet."""
    named = _command([part], False).rpartition(" ")[2].split(",")
    assert set(named) <= set(PARTS)
    rows = {one: rows_once(one, machine) for one in named if one in ALONE}
    if part == "collective":
        rows[part] = list(exchanges(machine))
    tables = {TABLE_OF.get(one, one): tuple(found) for one, found in rows.items()}
    devices = stand_in_devices(tables, units=1, memory_bytes=1e10, cache_bytes=machine.cache_bytes)
    profile = fit_measurements(Measurements({}, {}, tables, (), devices, True))
    every = {
        one for one in named if one in SUGGESTED
    }  # each needs no more than those that come with this one
    assert all(set(NEEDS.get(one, ())) <= set(named) for one in every)
    assert {OPS.get(one, one) for one in every} <= {fit.op for fit in profile.fits}
    assert from_json(to_json(profile)).fits


def test_every_suggestion_is_a_part():
    assert set(PARTS) >= SUGGESTED
    for part in SUGGESTED:
        assert set(_command([part], False).rpartition(" ")[2].split(",")) <= set(PARTS), part


@pytest.mark.parametrize("part", ["storage", "loader", "security", "compression"])
def test_the_smaller_parts_leave_a_profile_that_loads(part, machine):
    tables = {part: tuple(rows_once(part, machine))}
    devices = {machine.gpu: Device("here", "cpu", {"fp32": 1e11}, 1e10, 1e10, 1, 1e6)}
    profile = from_json(to_json(fit_measurements(Measurements({}, {}, tables, (), devices, True))))
    fits = [fit for fit in profile.fits if fit.op == part]
    assert {fit.key["of"] for fit in fits} == {row["op"] for row in tables[part]}
    for fit in fits:
        ratio = fit.op == "compression"
        assert fit.parameters.keys() <= ({"packing_ratio"} if ratio else {"bytes_per_s", "latency_s"})


def test_a_cpu_has_no_door_to_itself(machine):
    assert rows_of("copies", machine) == ([], [])


def test_power_is_left_out_where_nothing_tells_it(machine, tmp_path):
    from calibrate.microbenchmarks import power

    assert power.cpu_meter(tmp_path / "absent") is None
    (tmp_path / "energy").write_text("1000000")
    read = power.cpu_meter(tmp_path / "energy")
    (tmp_path / "energy").write_text("900000")  # the counter wrapped
    assert read()["power_w"] == 0.0
    (tmp_path / "energy").write_text("2900000")
    assert read()["power_w"] > 0


def test_stand_ins_are_told(machine, monkeypatch):
    from calibrate.microbenchmarks import host

    monkeypatch.setattr(host.importlib.util, "find_spec", lambda name: None)
    (row,), said = rows_of("security", machine)
    assert row["engine"] == "sha256"
    assert "stands in for AES-GCM" in said[0]
    (row,), said = rows_of("loader", machine)
    assert row["engine"] == "zlib"
    assert "stands in for JPEG" in said[0]


@pytest.mark.parametrize("rule", ["adamw", "sgd", "momentum", "lamb", "adamax"])
def test_an_optimizer_step_moves_weights_and_clears_gradients(rule, monkeypatch):
    from calibrate import networks
    from calibrate.microbenchmarks import optimizer

    made = []
    real = networks.FlatGradients
    monkeypatch.setattr(networks, "FlatGradients", lambda weights: made.extend(weights) or real(weights))
    monkeypatch.setattr(optimizer, "SIDE", 8)
    call = optimizer.step(torch, "cpu", rule, "foreach", 2)
    before = [weight.detach().clone() for weight in made]
    call()
    assert all(not torch.equal(old, new) for old, new in zip(before, made, strict=True))
    assert all(not weight.grad.any() for weight in made)
    assert all(torch.isfinite(weight).all() for weight in made)


def test_compression_keeps_what_it_does_not_send():
    from calibrate.microbenchmarks import compression

    torch.manual_seed(0)
    values, places = compression._call(torch, "cpu", "top-k", 32)()
    assert len(values) == len(places) == int(0.01 * 32 * 32)
    left, again = compression._call(torch, "cpu", "power-sgd", 32)()
    assert left.shape == again.shape == (32, compression.RANK)
    torch.testing.assert_close(left.t() @ left, torch.eye(compression.RANK), atol=1e-4, rtol=0)
    cast = compression._call(torch, "cpu", "fp8", 128)()
    assert cast.shape == (128, 1, 128) or cast.numel() == 128 * 128


def test_backward_is_timed_alone_and_is_the_gradient(machine):
    from calibrate.microbenchmarks import attention

    call = attention._call(torch, machine, "float32", attention.Call("bwd", 1, 4, 2, 8, 16), attention.ENGINE)
    query, key, value = call()
    assert query.shape == (1, 4, 16, 8)
    assert key.shape == value.shape == (1, 2, 16, 8)
    assert torch.equal(call()[0], query), "each call computes the same gradient anew"


def test_layouts_multiply_what_they_say(machine):
    from calibrate.microbenchmarks import matmul

    for layout in ("TN", "NN", "NT"):
        assert matmul._plain(torch, machine, "float32", (24, 32, 40), layout, 1)().shape == (24, 32)
    assert matmul._plain(torch, machine, "float32", (24, 32, 40), "TN", 3)().shape == (3, 24, 32)


def test_operands_in_turn_outgrow_the_cache(machine):
    made = []
    another = in_turn(machine, lambda: made.append(len(made)) or len(made), machine.cache_bytes / 2)
    assert len(made) == 4
    assert len({another() for _ in range(4)}) == 4
    on_device = replace(machine, device="cuda:0")
    assert in_turn(on_device, object, 1.0)() is not None


def test_a_sweep_measures_one_point_at_least_and_goes_round_refusals():
    def refuse():
        raise RuntimeError("no such unit\nand more")

    points = [Point({"n": n}, refuse if n == 2 else lambda: lambda calls: 1e-3 * calls) for n in range(4)]
    said = []
    ticks = iter(range(10_000))
    found = list(
        sweep(points, 100.0, 0, said.append, clock=lambda: 1e-3 * next(ticks), refusals=(RuntimeError,))
    )
    assert sorted(point.columns["n"] for point, _ in found) == [0, 1, 3]
    assert said == ["left out, not offered here: n 2 (no such unit)"]
    assert len(found[0][1].samples_s) == found[0][1].repeats
    (only,) = sweep(points[:1], 0.0, 0, said.append)
    assert only[1].median_s == pytest.approx(1e-3)


def test_the_first_points_are_those_that_a_short_budget_keeps():
    points = [Point({"n": n}, lambda: lambda calls: 0.0) for n in range(10)]
    assert affordable(points, 1.0, 0.25, 2) == points[:4]
    assert affordable(points, 0.0, 0.25, 2) == points[:2]


def test_every_part_has_a_table():
    from calibrate.tables import TABLES

    assert {TABLE_OF.get(part, part) for part in PARTS} == set(TABLES) - {"readings"}, (
        "readings come from other tools"
    )
