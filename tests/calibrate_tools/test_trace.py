"""Tracing on the meta device: FLOP and parameters equal the catalogue's and torch's own counter."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="tracing needs torch (extra: calibrate)")

from typer.testing import CliRunner  # noqa: E402

from app.cli import app  # noqa: E402
from calibrate.trace import TraceError, load_target, to_toml, trace  # noqa: E402
from sim.spec.kernel_list import forward_flop, kernel_rows  # noqa: E402
from sim.spec.layer_graph import layer_graphs  # noqa: E402
from sim.spec.parameter_count import total_parameters  # noqa: E402
from sim.spec.training_flop import training_flop_per_sample  # noqa: E402

pytestmark = pytest.mark.torch
HERE = Path(__file__).resolve().parent


@pytest.fixture
def models(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import traced_models

    yield traced_models
    sys.modules.pop("traced_models", None)


def test_resnet_50_equals_the_catalogue(models) -> None:
    traced, graph = trace(models.resnet_50, "resnet-50"), layer_graphs()["resnet-50"]
    assert traced.parameters == graph.parameters == 25_557_032
    assert traced.flop == graph.flop
    assert sum(calls for op, calls in traced.ops if op.kind == "conv") == 53


def test_a_gpt_block_equals_the_formulas(models) -> None:
    """12 h^2 + 13 h parameters and 24 s h^2 + 4 s^2 h FLOP forward: Narayanan et al. 2021, appendix."""
    traced, h, s = trace(models.gpt_block), models.HIDDEN, models.TOKENS
    assert traced.parameters == 12 * h**2 + 13 * h
    assert traced.flop == 24 * s * h**2 + 4 * s**2 * h


def test_torch_counts_the_same(models) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for build in (models.resnet_50, models.gpt_block, models.tied):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            module, example = build()
            module(example)
        assert trace(build).flop == counter.get_total_flops()


def test_shared_weights_count_once_and_the_file_reads_back(models) -> None:
    traced = trace(models.tied, "tied")
    assert traced.parameters == 800
    model = tomllib.loads(to_toml(traced, "traced_models:tied"))["training"]["model"]
    assert (model["params_total"], model["kernel_samples"]) == (800, 2)
    rows = kernel_rows(tuple(model["kernels"]))
    assert forward_flop(rows) == 2 * 10 * 8 * 100
    assert {"lookup", "gemm"} <= {row.kind for row in rows}


def test_a_scenario_of_the_trace_runs_and_agrees_with_the_catalogue(models, tmp_path: Path) -> None:
    """The traced ResNet-50 and the catalogue's, on the same machines: the same FLOP, steps within 15 %.

    The catalogue fuses nothing either, but counts passes over memory by its own rules.
    """
    import sim

    (tmp_path / "w.toml").write_text(to_toml(trace(models.resnet_50, "resnet-50"), "traced_models:resnet_50"))
    changes = ["training.plan.micro_batch=64", "training.global_batch=512"]
    traced = sim.load(tmp_path / "w.toml", changes)
    known = sim.load(tmp_path / "w.toml", [*changes, 'training.model="resnet-50"'])
    assert total_parameters(traced.training.model) == total_parameters(known.training.model)
    flop = [training_flop_per_sample(s.training.model, s.training, "full", "none") for s in (traced, known)]
    assert flop[0] == flop[1]
    assert sim.run(traced).step_s == pytest.approx(sim.run(known).step_s, rel=0.15)


def test_bad_rows_and_plans_that_cut_are_refused(models, tmp_path: Path) -> None:
    import sim
    from sim.spec.faults import ScenarioError

    text = (
        to_toml(trace(models.tied, "tied"), "x")
        .replace('"gemm calls', '"gem calls')
        .replace("lookups=10", "lookups=0")
    )
    (tmp_path / "w.toml").write_text(text)
    with pytest.raises(ScenarioError) as caught:
        sim.load(tmp_path / "w.toml", ["training.plan.tensor=2"])
    told = str(caught.value)
    assert "nearest is gemm" in told
    assert "expected positive sizes" in told
    assert "is not cut" in told


def test_what_cannot_be_traced_is_told_in_one_line(models) -> None:
    for build, says in (
        (models.nothing, "found int"),
        (models.looks_at_values, "does not run on the meta device"),
    ):
        with pytest.raises(TraceError, match=says) as caught:
            trace(build)
        assert len(str(caught.value).splitlines()) == 1
    for target, says in (
        ("x", "expected module:function"),
        ("no_such:f", "No module"),
        ("json:nope", "has no 'nope'"),
    ):
        with pytest.raises(TraceError, match=says):
            load_target(target)


def test_the_verb_writes_the_file(models, tmp_path: Path) -> None:
    out = tmp_path / "w.toml"
    done = CliRunner().invoke(app, ["calibrate", "trace", "traced_models:resnet_50", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert tomllib.loads(out.read_text())["training"]["model"]["params_total"] == 25_557_032
    done = CliRunner().invoke(app, ["calibrate", "trace", "nowhere:f", "--out", str(out)])
    assert done.exit_code == 2
