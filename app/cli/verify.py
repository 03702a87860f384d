"""``rackcast calibrate verify``: real steps on this machine beside what its profile predicts for them.

Measuring is the business of ``calibrate``, predicting that of ``sim.validation``; here the two meet.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.common import BAD_INPUT, print_json, refuse
from app.cli.known_devices import catalogue_devices, shipped_fits

if TYPE_CHECKING:
    import pandas as pd

    from calibrate.environment import Machine
    from calibrate.step_suite import Step
    from sim.spec.device import Device
    from sim.spec.profile import Profile

STEPS_FRAC = 0.5
"""Share of the budget for the steps; the rest calibrates."""


def verify_here(
    *,
    profile: Path | None,
    budget: str,
    processes: str,
    suite: str,
    out: Path | None,
    only_list: bool,
    seed: int,
    device: str,
    as_json: bool,
) -> int:
    """Run the verb; returns the exit code: 0, 1 a part failed, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""
    from calibrate import environment
    from calibrate.__main__ import tell
    from calibrate.environment import TorchMissingError

    counts, budget_s = _options(budget, processes, suite)
    try:
        machine = environment.machine(device, max(counts or [0]))
    except TorchMissingError as fault:
        refuse(str(fault))
    counts = counts or ([1, machine.devices] if machine.is_cuda else [1, 2])
    from calibrate.step_suite import suite as steps_of

    steps = steps_of(suite, cuda=machine.is_cuda, memory_bytes=machine.memory_bytes, processes=counts)
    if only_list:
        _list(steps, as_json)
        return 0
    try:
        known = _load(profile) if profile else _calibrate(steps, budget_s, max(counts), seed, device)
        rows, code = _measured(machine, steps, budget_s * (STEPS_FRAC if profile is None else 1.0), seed)
    except KeyboardInterrupt:
        tell("stopped")
        return 130
    table = _compared(rows, known)
    if out is not None:
        from sim.results.files import write_files

        try:
            write_files({out: table.to_csv(index=False).encode()})
        except OSError as fault:
            refuse(f"{out}: cannot be written: {fault.strerror}")
    document = _document(table, known, machine)
    if as_json:
        print_json(document)
    else:
        _print(document)
    return code


def _options(budget: str, processes: str, suite: str) -> tuple[list[int], float]:
    """Rank counts (none = choose) and seconds, or a refusal that lists every fault."""
    from calibrate.options import parse_budget
    from calibrate.step_suite import SUITES

    faults, counts, budget_s = [], [], 0.0
    try:
        budget_s = parse_budget(budget)
    except ValueError as fault:
        faults.append(f"--budget: {fault}")
    words = [word.strip() for word in processes.split(",") if word.strip()]
    if all(word.isdecimal() and int(word) > 0 for word in words):
        counts = sorted({int(word) for word in words})
    else:
        faults.append(f"--processes: found {processes!r}, expected numbers of ranks such as 1,2")
    if suite not in SUITES:
        faults.append(f"--suite: found {suite!r}, expected one of {', '.join(SUITES)}")
    if faults:
        refuse("\n".join(faults), BAD_INPUT)
    return counts, budget_s


def _load(path: Path) -> Profile:
    from sim.spec import profile as profiles

    try:
        return profiles.load(path)
    except profiles.ProfileError as fault:
        refuse(str(fault))
    except (OSError, UnicodeDecodeError) as fault:
        refuse(f"{path}: cannot be read ({getattr(fault, 'strerror', '') or fault})")


def _calibrate(steps: Sequence[Step], budget_s: float, ranks: int, seed: int, device: str) -> Profile:
    """A profile of this machine, measured now."""
    from calibrate.__main__ import run_here, tell
    from sim.spec import profile as profiles

    with tempfile.TemporaryDirectory(prefix="rackcast-") as folder:
        fitted = Path(folder) / "profile.json"
        given = {
            "budget": f"{budget_s * (1 - STEPS_FRAC):.3f}s",
            "only": ",".join(_parts(steps)),
            "processes": ranks if ranks > 1 else 0,
            "seed": seed,
            "device": device,
            "out": Path(folder) / "measurements.json",
            "profile_out": fitted,
        }
        code = run_here(given, tell, catalogue_devices, shipped_fits)
        if code == BAD_INPUT or not fitted.exists():
            refuse("calibration left no profile, so there is nothing to verify", code or 1)
        return profiles.load(fitted)


NEEDED: Mapping[str, tuple[str, ...]] = {"cnn": ("convolution",), "recommender": ("embedding", "optimizer")}
"""Parts of a calibration that a workload leans on beside those that all do."""
ALL_NEED = ("matmul", "memory", "attention", "layer", "launch", "collective")


def _parts(steps: Sequence[Step]) -> list[str]:
    """Parts of a calibration that the steps lean on."""
    from calibrate.parts import PARTS

    wanted = {*ALL_NEED, *(part for step in steps for part in NEEDED.get(step.workload, ()))}
    return [part for part in PARTS if part in wanted]


def _measured(
    machine: Machine, steps: Sequence[Step], budget_s: float, seed: int
) -> tuple[list[dict[str, Any]], int]:
    """Rows, and 1 where ranks failed before all were there, else 0."""
    from calibrate import steps as measuring
    from calibrate.__main__ import tell
    from calibrate.microbenchmarks.ranks import RankError

    rows, code, share_s = [], 0, budget_s / max(len(steps), 1)
    try:
        for row in measuring.measure(machine, steps, share_s, seed, lambda text: tell(f"warning: {text}")):
            tell(f"{row['id']}: {row['step_time_s']:.4g} s")
            rows.append(row)
    except RankError as fault:
        tell(f"error: {fault}")
        code = 1
    if not rows:
        refuse("no step could be run here", 1)
    return rows, code


def _compared(rows: Sequence[dict[str, Any]], known: Profile) -> pd.DataFrame:
    from pandas import DataFrame

    from sim.spec.catalog import load_catalog
    from sim.validation.verify import validate_steps

    fits, own = (*known.fits, *shipped_fits()), stand_ins(known)
    sheets = catalogue_devices(sorted({row["gpu"] for row in rows} - own.keys()))
    named = [dict(row, gpu=sheets[row["gpu"]].key) if row["gpu"] in sheets else row for row in rows]
    return validate_steps(DataFrame(named), fits, load_catalog(), own, "steps")


def stand_ins(known: Profile) -> dict[str, Device]:
    """Devices that the profile's fits are relative to, where that is no datasheet."""
    from dataclasses import fields

    from sim.spec.device import Device

    names = {field.name for field in fields(Device)}
    found = {}
    for gpu, entry in dict(known.provenance.get("stand_in_devices", {})).items():
        given = {name: value for name, value in entry.items() if name in names}
        found[str(gpu)] = Device(**given)
    return found


def _document(table: pd.DataFrame, known: Profile, machine: Machine) -> dict[str, Any]:
    from sim.validation.outcome import records, summary

    names = (
        "id",
        "num_gpus",
        "step_time_s",
        "low_s",
        "high_s",
        "wall_s",
        "predicted",
        "error_pct",
        "skipped",
    )
    steps = [
        {name: None if row[name] != row[name] else row[name] for name in names} for row in records(table)
    ]
    return {
        "device": machine.gpu,
        "profile": known.name,
        **summary(table, "workload"),
        "steps": steps,
        "warnings": list(known.provenance.get("warnings", [])),
    }


def _list(steps: Sequence[Step], as_json: bool) -> None:
    from calibrate.step_suite import Step as Noun

    documents = [
        {"id": step.name, "parameters": step.parameters, "bytes": step.needed_bytes}
        if step.workload not in ("cnn", "recommender")
        else {"id": step.name}
        for step in steps
        if isinstance(step, Noun)
    ]
    if as_json:
        print_json({"steps": documents})
        return
    for document in documents:
        size = f"  {document['parameters']:.3g} parameters" if "parameters" in document else ""
        print(f"{document['id']}{size}")


def _print(document: dict[str, Any]) -> None:
    from app.report.console import plain_table, screen

    console = screen()
    table = plain_table("step", "measured", "predicted", "error")
    for step in document["steps"]:
        if step["skipped"]:
            table.add_row(step["id"], f"{1e3 * step['step_time_s']:.4g} ms", "-", step["skipped"])
        else:
            seconds = (f"{1e3 * step[name]:.4g} ms" for name in ("step_time_s", "predicted"))
            table.add_row(step["id"], *seconds, f"{step['error_pct']:+.1f} %")
    console.print(table)
    if document["predicted"]:
        console.print(
            f"{document['predicted']} of {document['rows']} steps: median error {document['median_ape']:.1f} %, "
            f"largest {document['max_ape']:.1f} %, bias {document['bias_pct']:+.1f} %"
        )
