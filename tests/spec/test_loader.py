"""The boundary: all faults at once, nearest names, overrides, frozen and hashed results."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.kernels.memory_bound import memory_bound
from sim.spec.faults import ScenarioError
from sim.spec.loader import MAX_FILE_BYTES, load, loads
from sim.spec.overrides import override, value_text
from sim.spec.profiles import fits_for

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted((ROOT / "scenarios").glob("*.toml"))


def faults_of(text: str, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        loads(text, "x.toml", overrides)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_shipped_scenario_loads_and_says_what_it_shows(path: Path) -> None:
    scenario = load(path)
    assert scenario.name
    assert len(scenario.shows) > 20


def test_quantities_may_carry_units_and_names_are_resolved(small: str) -> None:
    scenario = loads(small)
    pool = scenario.cluster.pools[0]
    assert pool.devices == 16
    assert pool.accelerator.key == "a100-sxm4-80gb"
    assert scenario.cluster.fabric.tiers[0].latency_s == pytest.approx(3e-6)
    assert scenario.published[0].step_time_s == 10.0


def test_a_scenario_is_frozen(small: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        loads(small).seed = 3  # type: ignore[misc]


def test_a_published_figure_holds_only_for_the_scenario_as_written(small: str) -> None:
    assert loads(small, overrides=["seed=1"]).published
    assert not loads(small, overrides=["cluster.pools.0.nodes=4"]).published
    assert not loads(small, overrides=["training.plan={ tensor = 2 }"]).published


def test_the_hash_follows_the_content_not_the_text(small: str) -> None:
    assert loads(small).content_hash == loads("# comment\n" + small).content_hash
    assert loads(small).content_hash != loads(small, overrides=["seed=1"]).content_hash


def test_all_faults_are_told_at_once_with_key_value_expectation_and_nearest_name(small: str) -> None:
    told = faults_of(
        small,
        (
            "cluster.pools.0.nodes=0",
            "training.plan.tenser=4",
            "training.model=gpt3-6.7x",
            'training.sequence="4 GB"',
            "training.optimizer=adan",
            'cluster.fabric.tiers.0.latency_s="3 GB"',
            "published.0.step_time_s=-1",
        ),
    )
    text = "\n".join(told)
    assert len(told) == 7
    assert all(fault.startswith("x.toml: ") for fault in told)
    for piece in (
        "cluster.pools.0.nodes = 0: expected greater than or equal to 1",
        "training.plan.tenser = 4: is not a key here; did you mean 'tensor'?",
        "nearest: ",
        "training.optimizer = 'adan': expected one of",
        "did you mean 'adam'?",
        "'GB' is a unit of a size in bytes; expected a time",
        "published.0.step_time_s = -1: expected more than 0",
    ):
        assert piece in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.micro_batch=4", "it belongs in [training.plan]"),
        ("training.seq=4", "did you mean 'sequence'?"),
        ("cluster.pools.0.tensor=4", "it belongs in [training.plan] or [jobs.runs.training.plan]"),
        ("training.warp=4", "is not a key here; keys are model, "),
    ],
)
def test_a_key_in_the_wrong_table_is_told_where_it_belongs(small: str, override: str, message: str) -> None:
    (told,) = faults_of(small, (override,))
    assert message in told


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training=1", "training = 1: expected a table"),
        ("cluster.pools=3", "cluster.pools = 3: expected a list"),
        ("training.plan.compression=fp16", "training.plan.compression = 'fp16': expected a table"),
    ],
)
def test_a_value_in_place_of_a_table_or_a_list(small: str, override: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        loads(small, "small.toml", [override])
    assert message in str(error.value)


def test_a_device_written_out_keeps_its_memory_busy_and_its_links_are_its_own(small: str) -> None:
    rates = 'flop_per_s = { fp16 = "800 TFLOP/s" }, memory_bytes = "96 GB", memory_bytes_per_s = "4 TB/s"'
    plain = loads(small, overrides=[f"cluster.pools.0.accelerator={{ {rates} }}"])
    linked = loads(
        small, overrides=[f'cluster.pools.0.accelerator={{ {rates}, scale_up_bytes_per_s = "450 GB/s" }}']
    )
    bare, own = plain.cluster.pools[0].accelerator, linked.cluster.pools[0].accelerator
    assert bare.scale_up_fabric == "pcie"
    assert own.scale_up_fabric == "nvlink"
    assert "scale_up_fabric" in own.assumed
    # a pass over 1 GB: within twice the bound, not the hundred times that a device of one core would take
    estimate = memory_bound(fits_for("shipped"), bare.device(), "rms_norm", 65536, 4096, "fp16")
    assert 0.5 < estimate.seconds / estimate.lower_bound_s < 2


def test_faults_between_sections_are_told_too(small: str) -> None:
    told = "\n".join(faults_of(small, ("training.plan.tensor=3", "training.global_batch=63")))
    assert "expected a divisor of the model's heads (32)" in told
    assert "expected a divisor of the cluster's 16 devices" in told


def test_a_batch_that_does_not_divide_names_the_nearest_that_does(small: str) -> None:
    assert "nearest is 64" in faults_of(small, ("training.global_batch=65",))[0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nothing", "expected PATH=VALUE"),
        ("cluster.pools.7.nodes=1", "nothing under this path"),
        ("cluster.pools.0.nodes.x=1", "nothing under this path"),
        ("cluster.pools.x=1", "expected a number from 0 to 0"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(small: str, override: str, message: str) -> None:
    assert message in faults_of(small, (override,))[0]


def test_an_override_with_nothing_after_it_leaves_the_key_out_again(small: str) -> None:
    told = loads(small, overrides=["training.plan.tensor=2", "training.plan.tensor="])
    assert told.training is not None
    assert told.training.plan.tensor == 1


def test_an_override_may_change_one_number_of_a_catalogue_entry(small: str) -> None:
    scenario = loads(
        small,
        overrides=[
            "cluster.pools.0.system.nics_per_node=4",
            'cluster.pools.0.accelerator.memory_bytes="40 GiB"',
        ],
    )
    pool = scenario.cluster.pools[0]
    assert pool.system.nics_per_node == 4
    assert pool.system.key == "dgx-a100-80gb"
    assert "changed here: nics_per_node" in pool.system.source
    assert pool.accelerator.memory_bytes == 40 * 2**30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name: is required"),
        ("a = ", "is not valid TOML"),
        ("name = 'x'\ntraining = 3", "training = 3"),
        ("name = 'x'\n[cluster]\npools = []\n[training]\nmodel='gpt2'\nglobal_batch=1", "at least one pool"),
    ],
)
def test_files_that_are_no_scenario(text: str, message: str) -> None:
    assert message in "\n".join(faults_of(text))


def test_unreadable_files(tmp_path: Path) -> None:
    for name, content, message in (
        ("binary.toml", b"\xff\xfe\x00", "not UTF-8"),
        ("large.toml", b"#" * (MAX_FILE_BYTES + 1), "larger than"),
        ("deep.toml", b"a = " + b"[" * 5000, "not valid TOML"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ScenarioError, match=message):
            load(path)
    with pytest.raises(ScenarioError, match="cannot be read"):
        load(tmp_path / "absent.toml")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.plan.schedule=gpipe", "GPipe has no virtual stages"),
        ("training.plan.pipeline=1", "expected 1 without pipeline stages"),
        ("training.plan={schedule='zb-h1', zero_stage=3}", "gathered under way is not modelled"),
        ("training.model=efficientnet-b0", "is of kind cnn"),
        ("training.precision=fp8", "a100-sxm4-80gb computes in"),
        ("training.sequence=1", "2 or more"),
        ("training.plan.virtual_stages=9", "exceeds the model's 32 layers"),
        ("training.global_batch=3", "expected a multiple of data parallel"),
        ("training.global_batch=100000000", "more than can be simulated"),
        ("training.model.heads=0", "missing heads"),
        ("training.model.kv_heads=5", "do not share"),
    ],
)
def test_plans_that_cannot_be(small: str, override: str, message: str) -> None:
    assert message in "\n".join(faults_of(small, (override,)))


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.booleans()
        | st.integers(-9, 9)
        | st.sampled_from(["full", "1f1b"])
        | st.lists(st.sampled_from(["x", "y"])),
        min_size=1,
    )
)
def test_a_value_that_is_told_comes_back(values: dict[str, Any]) -> None:
    whole: dict[str, Any] = {}
    assert override(whole, f"at={value_text(values)}") is None
    assert whole == {"at": values}
    each: dict[str, Any] = {"at": {}}
    for name, value in values.items():
        assert override(each, f"at.{name}={value_text(value)}") is None
    assert each == {"at": {name: value for name, value in values.items() if value != []}}
