"""One measuring campaign: which parts, in which order, for how long, and what is on disk when it ends early.

Like an expedition with a fixed number of days: each part gets its share of what is left, readings are written
down at once, and turning back early still brings home what was found.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calibrate import conditions, environment
from calibrate.claim import claimed
from calibrate.draft import Draft
from calibrate.environment import Machine
from calibrate.measure import Warn
from calibrate.measurements import Measurements
from calibrate.microbenchmarks.common import Earlier
from calibrate.options import Options
from calibrate.parts import BY_POINT, PARTS, TABLE_OF, WITH_RANKS

SAVE_EVERY_S = 2.0
LATE_FRAC, LATE_S = 0.1, 30.0
"""A run ends this much after its budget (the larger) whatever parts are still to come: batch systems kill."""


class StoppedError(Exception):
    """The run was told to end (SIGTERM, as a batch system sends before the time limit)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    measurements: Measurements
    exit_code: int
    """0; 1 where a part failed; 130 after Ctrl-C, 143 after SIGTERM."""
    rank: int = 0
    """Under ``torchrun``; only rank 0 has the rows and writes."""
    out: Path = Path()
    """The file that was written: ``options.out``, or one beside it where that belongs to another run."""


def run(options: Options, tell: Callable[[str], None] = lambda text: print(text, file=sys.stderr)) -> Outcome:
    """Measure, and leave what was measured in ``options.out`` however the run ends.

    Args:
        options: what to measure.
        tell: told of progress and warnings, one line each.

    Raises:
        TorchMissingError: torch does not import.
    """
    from calibrate.microbenchmarks import collective

    rank = collective.launched_rank() or 0
    tell = tell if rank == 0 else _mute
    machine = environment.machine(options.device, options.processes)
    draft = Draft(options, machine, environment.describe(machine, hostname=options.hostname))
    tell(f"{machine.gpu} ({machine.device}), {machine.software}: {options.budget_s:.3g} s of measuring")
    if rank != 0:
        return _campaign(draft, rank, tell)
    with claimed(options.out, draft.fair_copy(complete=False)) as out:
        if out != options.out:
            tell(f"note: {options.out} belongs to another node or run; this one writes {out}")
            draft.options = replace(options, out=out)
        draft.take_up(tell, alone=collective.launched_rank() is None)
        draft.save()  # a path that cannot be written is refused before an hour of measuring, not after
        return _campaign(draft, rank, tell)


def _campaign(draft: Draft, rank: int, tell: Callable[[str], None]) -> Outcome:
    """All parts, and the file as it is at the end."""
    code = 0
    try:
        with _terminate_as_exception():
            code = _all_parts(draft, rank, tell)
    except KeyboardInterrupt:
        code = 130
    except StoppedError:
        code = 143
    finally:
        if rank == 0:
            draft.save(complete=code == 0)
    if rank == 0:
        rows = sum(draft.counts().values())
        state = {0: "complete", 1: "a part failed"}.get(code, "stopped early; the same command goes on")
        tell(f"{rows} rows in {draft.options.out} ({state})")
    return Outcome(draft.fair_copy(complete=code == 0), code, rank, draft.options.out)


def _mute(text: str) -> None:
    del text


def _all_parts(draft: Draft, rank: int, tell: Callable[[str], None]) -> int:
    from calibrate.microbenchmarks import collective
    from calibrate.microbenchmarks.ranks import RankError, first_line

    def warn(text: str) -> None:
        draft.warnings.append(text)
        tell(f"warning: {text}")

    order = [part for part in PARTS if part in draft.options.parts and part not in draft.done]
    order.sort(
        key=lambda part: part != draft.under_way.get("part")
    )  # what was cut first: its rows are the last
    if collective.launched_rank() is not None and "collective" in order:
        order = ["collective", *(part for part in order if part != "collective")]  # while all ranks are there
    share = sum(PARTS[part] for part in order) / sum(PARTS[part] for part in draft.options.parts)
    end, code = time.monotonic() + draft.options.budget_s * share, 0
    late = end + max(LATE_FRAC * draft.options.budget_s, LATE_S)
    if rank == 0:
        try:
            conditions.soak(draft.machine, draft.options.budget_s)
        except (
            RuntimeError
        ) as fault:  # another tenant holds the memory, or the device is ill: parts will tell
            warn(f"conditions: the device could not be warmed up ({first_line(fault)})")
        for text in conditions.warnings_of(draft.machine):
            warn(text)
    for number, part in enumerate(order):
        left = sum(PARTS[later] for later in order[number:])
        budget_s = max(end - time.monotonic(), 0.0) * PARTS[part] / left
        if rank != 0 and part != "collective":
            continue
        begin = time.monotonic()
        laid_out_s, earlier = draft.sitting(part, budget_s)
        before = draft.under_way["before"]
        try:
            if begin > late:
                warn(f"{part}: left out, the budget of {draft.options.budget_s:.3g} s is spent")
                continue
            whole = _measured(part, draft, _rows(part, draft, laid_out_s, warn, earlier), rank, late)
            if not whole:
                warn(f"{part}: cut, the budget of {draft.options.budget_s:.3g} s is spent")
        except StoppedError:
            raise
        except (
            Exception
        ) as fault:  # the boundary of a part: what one cannot do is no reason to lose the others
            named = (
                str(fault) if isinstance(fault, RankError) else f"{type(fault).__name__}: {first_line(fault)}"
            )
            draft.warnings.append(f"{part}: {named}")
            tell(f"error: {part}: {named}")
            code = 1
        else:
            new = draft.since(before)
            if new and whole:  # a part that the budget never reached, or cut, is not finished
                draft.finish(part, new)
        _free(draft.machine)
        if part in WITH_RANKS and _starts_ranks(draft):
            # starting ranks is not measuring, and takes nothing from the parts to come
            over = max(time.monotonic() - begin - budget_s, 0.0)
            end, late = end + over, late + over
        if rank == 0:
            draft.save()
            tell(f"{part}: {sum(draft.since(before).values())} rows in {time.monotonic() - begin:.1f} s")
    if rank == 0 and draft.machine.is_cuda:
        for text in conditions.warnings_of(draft.machine):
            warn(f"{text} (after the run)")
    return code


def _measured(
    part: str, draft: Draft, rows: Iterable[tuple[str, dict[str, Any]]], rank: int, late_s: float
) -> bool:
    """Write a part's rows down as they come; whether it came to its end before ``late_s``."""
    for table, row in rows:
        if not draft.options.raw:
            row.pop("samples_us", None)
        draft.tables.setdefault(table, []).append(row)
        if rank == 0:
            draft.save(at_most_every_s=SAVE_EVERY_S)
        if part not in WITH_RANKS and time.monotonic() > late_s:
            return False
    return True


def _starts_ranks(draft: Draft) -> bool:
    return not draft.machine.is_cuda or draft.machine.devices > 1 or draft.options.processes > 1


def _free(machine: Machine) -> None:
    """Give the device's memory back between parts: ranks are other processes and need it, too."""
    gc.collect()
    if machine.is_cuda:
        environment.import_torch().cuda.empty_cache()


def _rows(
    part: str, draft: Draft, budget_s: float, warn: Warn, earlier: Earlier
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(table, row) of one part, less those that an earlier sitting has."""
    from calibrate.microbenchmarks import (
        attention,
        collective,
        compression,
        convolution,
        copies,
        embedding,
        host,
        launch,
        layer,
        matmul,
        memory,
        optimizer,
        overlap,
        power,
    )

    options = draft.options
    given = draft.machine, budget_s, options.seed, warn
    if part == "layer":
        yield from layer.measure(*given, processes=options.processes, earlier=earlier)
        return
    table = TABLE_OF.get(part, part)
    if part == "collective":
        rows = collective.measure(
            *given,
            processes=options.processes,
            system=options.system,
            fabric=options.fabric,
            earlier=earlier,
        )
    elif part == "overlap":
        rows = overlap.measure(*given, processes=options.processes)
    else:
        measure = {
            "matmul": matmul.measure,
            "memory": memory.measure,
            "attention": attention.measure,
            "launch": launch.measure,
            "convolution": convolution.measure,
            "embedding": embedding.measure,
            "optimizer": optimizer.measure,
            "copies": copies.measure,
            "loader": host.loader,
            "storage": host.storage,
            "security": host.security,
            "compression": compression.measure,
            "power": power.measure,
        }[part]
        rows = measure(*given, earlier=earlier) if part in BY_POINT else measure(*given)
    for row in rows:
        yield table, row


@contextmanager
def _terminate_as_exception() -> Iterator[None]:
    """SIGTERM raises :class:`StoppedError` here, so that the same path as Ctrl-C saves what there is."""

    def stop(number: int, frame: Any) -> None:
        del number, frame
        raise StoppedError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
