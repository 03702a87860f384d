"""``python -m calibrate``: the measuring tool by itself, for a node with Python and torch and little else.

Only the standard library is imported until a command runs, so ``--help`` works anywhere and ``fit`` works
without torch.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibrate import tools
from calibrate.parts import PARTS

if TYPE_CHECKING:
    from calibrate.measurements import Measurements
    from sim.spec.device import Device
    from sim.spec.profile import Fit

    Datasheets = Callable[[list[str]], Mapping[str, Device]]
    """Datasheets of those of the named devices that are known."""

BAD_INPUT = 2

Tell = Callable[[str], None]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m calibrate", description="Measure this machine and fit a calibration profile."
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="run | fit | screen")
    run = verbs.add_parser("run", help="measure this machine: kernels, layers, messages, storage")
    run.add_argument("--budget", default="1m", help="time for measuring, e.g. 45s, 5m (default: %(default)s)")
    run.add_argument("--out", type=Path, default=Path("measurements.json"), help="default: %(default)s")
    run.add_argument("--only", default="", metavar="PARTS", help="of " + ",".join(PARTS))
    run.add_argument(
        "--processes", type=int, default=0, help="ranks of the collectives; default: one a GPU, or 2"
    )
    run.add_argument("--seed", type=int, default=0, help="of shapes and order (default: %(default)s)")
    run.add_argument(
        "--device", default="", help="torch device, e.g. cpu or cuda:1; default: the first GPU, or cpu"
    )
    run.add_argument("--system", default="", help="name of the node or cluster in the rows")
    run.add_argument("--fabric", default="", help="nvlink, pcie, infiniband, roce, ...; default: found out")
    run.add_argument(
        "--hostname", action="store_true", help="record this host's name (not recorded otherwise)"
    )
    run.add_argument("--raw", action="store_true", help="keep the time of every block")
    run.add_argument("--name", default="", help="of the profile")
    run.add_argument("--profile-out", type=Path, help="default: beside --out, ending in .profile.json")
    fit = verbs.add_parser("fit", help="fit a profile to a measurement file; needs scipy, not torch")
    fit.add_argument("measurements", type=Path)
    fit.add_argument("--out", type=Path, help="default: beside the measurements, ending in .profile.json")
    fit.add_argument("--name", default="", help="of the profile")
    fit.add_argument("--prior", type=Path, help="profile to lean on where the measurements are thin")
    tools.add_to(verbs)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code: 0, 1 a part failed, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""
    given = parser().parse_args(arguments)
    if given.verb in tools.VERBS:
        return tools.call(vars(given))
    if given.verb == "fit":
        return fit_file(given.measurements, given.out, given.name, tell, prior=given.prior)
    return run_here(vars(given), tell)


def tell(text: str) -> None:
    """A line for people: on standard error, so that standard output stays free."""
    print(text, file=sys.stderr, flush=True)


def run_here(
    given: Mapping[str, Any],
    say: Tell,
    datasheets: Datasheets | None = None,
    shipped: Callable[[], Sequence[Fit]] | None = None,
) -> int:
    """Measure, and fit what was measured where scipy is there; returns the exit code.

    Args:
        given: options by name, as in :func:`parser`.
        say: told of progress, warnings and errors.
        datasheets: finds datasheets by device name; without one the best rates seen stand in.
        shipped: profiles to lean on where they have the device's generation.
    """
    from calibrate.environment import TorchMissingError
    from calibrate.options import OptionError, parse_options
    from calibrate.run import run

    words = {name: value for name, value in given.items() if name not in ("verb", "name", "profile_out")}
    try:
        options = parse_options(**words)
        outcome = run(options, say)
    except (OptionError, TorchMissingError) as fault:
        say(str(fault))
        return BAD_INPUT
    except OSError as fault:
        say(f"cannot write {words['out']}: {fault.strerror or fault}")
        return BAD_INPUT
    if outcome.rank == 0 and outcome.exit_code in (0, 1) and outcome.measurements.tables:
        _judge(outcome.measurements, outcome.out, say, datasheets, shipped)
        profile_out = (
            given.get("profile_out") if outcome.out == options.out else None
        )  # that is another run's
        _fit_if_possible(outcome.out, profile_out, str(given.get("name", "")), say, datasheets, shipped)
    return outcome.exit_code


def fit_file(
    path: Path,
    out: Path | None,
    name: str,
    say: Tell,
    datasheets: Datasheets | None = None,
    prior: Path | None = None,
    shipped: Callable[[], Sequence[Fit]] | None = None,
) -> int:
    """Fit a measurement file and write the profile; returns the exit code.

    ``prior`` is a profile file to lean on; without one, what is ``shipped`` for the devices' generations is.
    ``say``, ``datasheets`` and ``shipped`` are as in :func:`run_here`.
    """
    from calibrate.fit import NothingToFitError, fit_measurements, gpu_names
    from calibrate.measurements import MeasurementsError, load, write_text
    from sim.spec import profile as profiles

    try:
        measurements = load(path)
        lean_on = profiles.load(prior).fits if prior else ()
    except (MeasurementsError, profiles.ProfileError) as fault:
        say(str(fault))
        return BAD_INPUT
    except (OSError, UnicodeDecodeError) as fault:
        say(f"cannot read {prior}: {getattr(fault, 'strerror', '') or fault}")
        return BAD_INPUT
    try:
        devices = datasheets(gpu_names(measurements)) if datasheets else {}
        if prior is None and shipped is not None:
            every = [*measurements.devices.values(), *devices.values()]
            kin = {device.generation for device in every}
            lean_on = tuple(
                fit for fit in shipped() if fit.key.get("generation") in kin and fit.op != "stack"
            )
        profile = fit_measurements(measurements, devices, prior=lean_on, name=name)
    except ModuleNotFoundError as fault:
        if not str(fault.name).startswith("scipy"):
            raise
        say(f"fitting needs scipy, which does not import here ({fault}); install it with: pip install scipy")
        return BAD_INPUT
    except NothingToFitError as fault:
        say(f"{path}: {fault}")
        return BAD_INPUT
    out = out or path.with_name(f"{path.name.removesuffix('.json')}.profile.json")
    try:
        write_text(out, profiles.to_json(profile))
    except OSError as fault:
        say(f"cannot write {out}: {fault.strerror or fault}")
        return BAD_INPUT
    for reason in profile.provenance["left_out"]:
        say(f"left out: {reason}")
    say(f"{len(profile.fits)} fits in {out}")
    return 0


def _judge(
    measurements: Measurements,
    path: Path,
    say: Tell,
    datasheets: Datasheets | None,
    shipped: Callable[[], Sequence[Fit]] | None,
) -> None:
    """Whether the node delivers what it should, by the datasheet; its peers are known to ``report`` alone."""
    from calibrate.fit import gpu_names
    from calibrate.report.figures import figures
    from calibrate.report.verdicts import judge, node_verdict

    gpus = gpu_names(measurements)
    devices = datasheets(gpus) if datasheets else {}
    fits = tuple(shipped()) if shipped and devices else ()
    verdict = node_verdict(judge(figures("", measurements, devices, fits)))
    unknown = f"no datasheet figure of {', '.join(gpus)} for what was measured is known here"
    say(verdict or f"{unknown}, so whether this node is well is not judged")
    say(f"beside others of its kind: rackcast calibrate report {path.name} ...")


def _fit_if_possible(
    path: Path,
    out: object,
    name: str,
    say: Tell,
    datasheets: Datasheets | None,
    shipped: Callable[[], Sequence[Fit]] | None,
) -> None:
    try:
        importlib.import_module("scipy")
    except ImportError:
        say(
            f"scipy is not here, so no profile was fitted: copy {path.name} to a machine with rackcast and run"
        )
        say(f"  rackcast calibrate fit {path.name}")
        return
    if fit_file(path, out if isinstance(out, Path) else None, name, say, datasheets, shipped=shipped) == 0:
        say("next, where rackcast is: the profile's path as profile = ... in a scenario that is run")


if __name__ == "__main__":
    sys.exit(main())
