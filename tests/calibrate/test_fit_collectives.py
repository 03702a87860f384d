"""Fitting collectives: known truth comes back, harnesses and faults do not, and the shipped measurements are met."""

from __future__ import annotations

import csv
import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibrate.fit.collective_observations import Observation, faulty, levels, misread, observation
from calibrate.fit.collectives import cross_validate, fit, fit_with_errors, predict
from sim.cost.collectives import collective
from sim.cost.links import Links
from sim.cost.node_links import measured_links
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit, Profile, from_json, to_json

H100 = Device("h100-sxm5-80gb", "hopper", {}, 80e9, 3.35e12, 132, 50e6, "nvidia", 450e9, 63e9)
A100 = Device("a100-sxm4-80gb", "ampere", {}, 80e9, 2.04e12, 108, 40e6, "nvidia", 300e9, 31.5e9)
L40S = Device("l40s", "ada", {}, 48e9, 8.6e11, 142, 96e6, "nvidia", 0, 31.5e9)
SIZES = 2.0 ** np.arange(10, 34, 2)
MEASUREMENTS = Path(__file__).parents[2] / "scenarios" / "measurements" / "collectives.csv.gz"


def truth(op: str, **values: float) -> Fit:
    return Fit(op, {}, {name: Constant(v, "1", "assumed", "test") for name, v in values.items()})


def sweep(
    system: str,
    device: Device,
    op: str,
    ranks: int,
    fits: list[Fit],
    *,
    nodes: int = 1,
    offset_s: float = 0.0,
) -> list[Observation]:
    links = measured_links(device, system, nodes=nodes, ranks=ranks, fabric="" if nodes > 1 else "nvlink")
    seconds = collective(fits, links, op, SIZES, ranks).seconds
    return [
        Observation(system, links, op, ranks, float(m), float(np.hypot(t, offset_s)), harness=system)
        for m, t in zip(SIZES, seconds, strict=True)
    ]


def ape(predicted: np.ndarray, seen: list[Observation]) -> np.ndarray:
    return np.abs(predicted / np.array([o.seconds for o in seen]) - 1)


GATHER = truth("all_gather", base_s=4e-6, step_s=8e-7, bandwidth_frac=0.7, extra_s=1e-5, ll_frac=0.3)


def test_a_single_users_sweep_is_reproduced_and_survives_json() -> None:
    seen = [o for n in (2, 4, 8) for o in sweep("mine", H100, "all_gather", n, [GATHER])]
    fits = fit(seen, "test")
    assert np.median(ape(predict(fits, seen), seen)) < 0.02
    again = from_json(to_json(Profile("p", tuple(fits)))).fits
    np.testing.assert_allclose(predict(list(again), seen), predict(fits, seen))
    assert max(f.grid.numbers for f in fits if f.grid) <= 300


def test_a_thin_sweep_corrects_the_shipped_curve_where_it_was_measured() -> None:
    shipped = fit([o for n in (2, 4, 8) for o in sweep("shop", H100, "all_gather", n, [GATHER])], "test")
    mine = [o for o in sweep("mine", H100, "all_gather", 8, [GATHER]) if o.message_bytes >= 2**24][::2]
    mine = [replace(o, seconds=1.5 * o.seconds) for o in mine]
    fits = fit(mine, "test", prior=shipped)
    assert np.max(ape(predict(fits, mine), mine)) < 0.1
    small = replace(mine[0], message_bytes=1024.0)
    assert predict(fits, [small]) == pytest.approx(float(predict(shipped, [small])[0]), rel=0.25)


def test_harness_time_is_taken_out_and_fast_harnesses_agree() -> None:
    seen = [o for s in ("a", "b", "c") for o in sweep(s, H100, "all_gather", 8, [GATHER])]
    seen += sweep("eager", H100, "all_gather", 8, [GATHER], offset_s=4e-5)
    level = levels(seen)
    fast = level["a", "all_gather", 8]
    measured, middling = level["eager", "all_gather", 8]
    assert measured > 3 * fast[0]
    assert middling == pytest.approx(fast[0], rel=0.2)
    clean = [o for o in seen if o.system == "a"]
    assert np.median(ape(predict(fit(seen, "test"), clean), clean)) < 0.15


def test_an_unseen_system_and_group_size_follow_from_the_links() -> None:
    seen = [o for s in ("a", "b") for n in (2, 8) for o in sweep(s, H100, "all_gather", n, [GATHER])]
    predicted = cross_validate(seen)
    assert np.median(ape(predicted, seen)) < 0.03
    between = sweep("new", H100, "all_gather", 4, [GATHER])
    assert np.median(ape(predict(fit(seen, "test"), between), between)) < 0.1


def test_an_unseen_generation_scales_with_its_link_rate() -> None:
    fits = fit([o for s in ("a", "b") for o in sweep(s, H100, "all_gather", 8, [GATHER])], "test")
    other = sweep("ampere", A100, "all_gather", 8, [GATHER])
    assert np.median(ape(predict(fits, other), other)) < 0.1


def test_a_collapsed_pcie_group_is_a_fault_and_is_not_learnt() -> None:
    links = Links("l40s", "ada", "pcie", 31.5e9, 8, host_bytes_per_s=31.5e9)
    good = [Observation("box", links, "all_gather", 2, m, 1e-5 + m / 2 / 20e9) for m in SIZES]
    bad = [Observation("box", links, "all_gather", 8, m, 1e-5 + 7 * m / 8 / 2e9) for m in SIZES]
    assert faulty(good + bad) == {("box", "all_gather", 8)}
    healthy = [
        replace(o, seconds=1e-5 + 7 * o.message_bytes / 8 / 20e9) for o in bad if o.message_bytes > 1e8
    ]
    assert np.median(ape(predict(fit(good + bad, "test"), healthy), healthy)) < 0.2


def test_network_is_fitted_and_wrongly_assumed_cards_are_left_out() -> None:
    wire = truth("network", base_s=2e-5, bandwidth_frac=0.8, depth_frac=0.5)
    seen = [o for s in ("8x400G a", "8x400G b") for o in sweep(s, H100, "all_reduce", 32, [wire], nodes=4)]
    slow = [replace(o, system="cheap cards", seconds=20 * o.seconds) for o in seen[: len(SIZES)]]
    assert misread(seen + slow) == {"cheap cards"}
    fits = fit(seen + slow, "test")
    assert np.median(ape(predict(fits, seen), seen)) < 0.1
    found = next(f for f in fits if f.op == "network")
    assert found.parameters["bandwidth_frac"].kind == "fitted"
    assert found.parameters["bandwidth_frac"].value == pytest.approx(0.8, rel=0.1)


def test_a_cpu_without_gpus_is_fitted_over_gloo() -> None:
    cpu = Device("cpu", "cpu", {}, 64e9, 4e10, 8, 3e7)
    links = measured_links(cpu, "laptop", nodes=1, ranks=2, fabric="gloo")
    seen = [Observation("laptop", links, "all_reduce", 2, m, 2e-4 + m / 3e9) for m in SIZES]
    fits = fit(seen, "test")
    assert {f.key["fabric"] for f in fits} == {"gloo"}
    assert np.median(ape(predict(fits, seen), seen)) < 0.05


def test_rows_become_observations_or_reasons() -> None:
    devices = {"H100": H100, "V100": A100, "V100-PCIe-32GB": L40S}
    row = {"system": "x PCIe", "gpu": "V100", "nodes": "1", "gpus": "4.0", "fabric": "pcie", "collective": "all_gather",
           "size_bytes": "1024", "time_us": "20", "source": "owner/repo@abc path"}  # fmt: skip
    seen = observation(row, devices)
    assert isinstance(seen, Observation)
    assert (seen.links.accelerator, seen.harness) == ("l40s", "owner/repo")
    assert seen.seconds == pytest.approx(2e-5)
    assert observation(row | {"size_bytes": ""}, devices) == "no message size"
    assert observation(row | {"gpu": "Z9"}, devices) == "unknown accelerator 'Z9'"
    assert observation(row | {"gpu": ""}, devices) == "accelerator not stated"
    assert observation(row | {"collective": "gossip"}, devices) == "unknown collective 'gossip'"


def test_cross_validated_errors_reach_the_fits() -> None:
    seen = [o for s in ("a", "b") for o in sweep(s, H100, "all_gather", 8, [GATHER])]
    marked = fit_with_errors(seen, "test")
    assert all(f.error and f.error.method == "systems left out in turn" for f in marked)


@pytest.mark.skipif(
    not MEASUREMENTS.exists(), reason="scenarios/measurements/collectives.csv.gz is not there"
)
def test_measured_nvswitch_nodes_are_met() -> None:
    rates = {"A100": A100, "H100": H100, "H200": replace(H100, key="h200-sxm-141gb"),
             "B200": Device("b200-sxm-180gb", "blackwell", {}, 0, 0, 148, 0, "nvidia", 900e9, 63e9),
             "GB200": Device("gb200", "blackwell", {}, 0, 0, 148, 0, "nvidia", 900e9, 63e9)}  # fmt: skip
    with gzip.open(MEASUREMENTS, "rt", newline="", encoding="utf-8") as file:
        rows = [
            r for r in csv.DictReader(file) if r["fabric"] == "nvlink" and r["time_us"] and r["gpu"] in rates
        ]
    seen = [o for o in (observation(r, rates) for r in rows) if isinstance(o, Observation)]
    error = ape(predict(fit(seen, "test"), seen), seen)
    large = np.array([o.message_bytes > 2**22 for o in seen])
    assert np.median(error[large]) < 0.03
    assert np.median(error[~large]) < 0.10
