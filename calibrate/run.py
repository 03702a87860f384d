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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from calibrate import conditions, environment, resume
from calibrate.environment import Machine
from calibrate.measure import Warn
from calibrate.measurements import Measurements, save
from calibrate.options import Options
from calibrate.parts import PARTS, TABLE_OF, WITH_RANKS
from calibrate.stand_in import stand_in_devices

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


@dataclass(slots=True)
class Draft:
    """The field book while the run goes on."""

    options: Options
    machine: Machine
    environment: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    done: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows by table of the parts that are finished, here or in the run that this one takes up."""
    saved_at_s: float = 0.0

    def settings(self) -> dict[str, Any]:
        """Options of the run and how far it has come."""
        options = {
            name: value
            for name, value in asdict(self.options).items()
            if name not in ("out", "hostname", "raw")
        }
        return {**options, resume.HOST: resume.host_key(), resume.DONE: dict(self.done)}

    def take_up(self, tell: Callable[[str], None], *, alone: bool) -> None:
        """Keep what a killed run of the same campaign has finished; ranks of others cannot know of it."""
        found = resume.kept(self.options.out, self.settings(), self.environment)
        if found.why_not:
            tell(f"note: {found.why_not}")
        if not alone and "collective" in found.parts:
            return  # measured by all ranks together, and first: nothing after it can be kept without it
        self.tables = {table: [dict(row) for row in rows] for table, rows in found.tables.items()}
        self.done = {part: dict(counts) for part, counts in found.parts.items()}
        if self.done:
            self.warnings += found.warnings
            tell(f"taking up {self.options.out}: {', '.join(self.done)} kept")

    def fair_copy(self, *, complete: bool) -> Measurements:
        """What has been measured so far."""
        machine, memory_bytes = self.machine, self.machine.memory_bytes
        if not machine.is_cuda:
            memory_bytes = float(
                self.environment.get("memory_bytes", memory_bytes)
            )  # all of it, not what is free
        return Measurements(
            environment=self.environment,
            settings=self.settings(),
            tables={name: tuple(rows) for name, rows in self.tables.items()},
            warnings=tuple(self.warnings),
            devices=stand_in_devices(
                self.tables,
                units=machine.units,
                memory_bytes=memory_bytes,
                cache_bytes=machine.cache_bytes,
            ),
            complete=complete,
        )

    def save(self, *, complete: bool = False, at_most_every_s: float = 0.0) -> None:
        """Write the file, unless it was written less than ``at_most_every_s`` ago."""
        if time.monotonic() - self.saved_at_s >= at_most_every_s:
            save(self.fair_copy(complete=complete), self.options.out)
            self.saved_at_s = time.monotonic()


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
    if rank == 0:
        draft.take_up(tell, alone=collective.launched_rank() is None)
        draft.save()  # a path that cannot be written is refused before an hour of measuring, not after
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
        rows = sum(_counts(draft).values())
        state = {0: "complete", 1: "a part failed"}.get(code, "stopped early")
        tell(f"{rows} rows in {options.out} ({state})")
    return Outcome(draft.fair_copy(complete=code == 0), code, rank)


def _mute(text: str) -> None:
    del text


def _all_parts(draft: Draft, rank: int, tell: Callable[[str], None]) -> int:
    from calibrate.microbenchmarks import collective
    from calibrate.microbenchmarks.ranks import RankError, first_line

    def warn(text: str) -> None:
        draft.warnings.append(text)
        tell(f"warning: {text}")

    order = [part for part in PARTS if part in draft.options.parts and part not in draft.done]
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
        begin, before = time.monotonic(), _counts(draft)
        whole = True
        try:
            if begin > late:
                warn(f"{part}: left out, the budget of {draft.options.budget_s:.3g} s is spent")
                continue
            for table, row in _rows(part, draft, budget_s, warn):
                if not draft.options.raw:
                    row.pop("samples_us", None)
                draft.tables.setdefault(table, []).append(row)
                if rank == 0:
                    draft.save(at_most_every_s=SAVE_EVERY_S)
                if part not in WITH_RANKS and time.monotonic() > late:
                    warn(f"{part}: cut, the budget of {draft.options.budget_s:.3g} s is spent")
                    whole = False
                    break
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
            new = _since(draft, before)
            if new and whole:  # a part that the budget never reached, or cut, is not finished
                draft.done[part] = new
        _free(draft.machine)
        if part in WITH_RANKS and _starts_ranks(draft):
            # starting ranks is not measuring, and takes nothing from the parts to come
            over = max(time.monotonic() - begin - budget_s, 0.0)
            end, late = end + over, late + over
        if rank == 0:
            draft.save()
            tell(f"{part}: {sum(_since(draft, before).values())} rows in {time.monotonic() - begin:.1f} s")
    if rank == 0 and draft.machine.is_cuda:
        for text in conditions.warnings_of(draft.machine):
            warn(f"{text} (after the run)")
    return code


def _starts_ranks(draft: Draft) -> bool:
    return not draft.machine.is_cuda or draft.machine.devices > 1 or draft.options.processes > 1


def _free(machine: Machine) -> None:
    """Give the device's memory back between parts: ranks are other processes and need it, too."""
    gc.collect()
    if machine.is_cuda:
        environment.import_torch().cuda.empty_cache()


def _counts(draft: Draft) -> dict[str, int]:
    return {table: len(rows) for table, rows in draft.tables.items()}


def _since(draft: Draft, before: Mapping[str, int]) -> dict[str, int]:
    """Rows by table that came since."""
    return {
        table: n - before.get(table, 0) for table, n in _counts(draft).items() if n > before.get(table, 0)
    }


def _rows(part: str, draft: Draft, budget_s: float, warn: Warn) -> Iterator[tuple[str, dict[str, Any]]]:
    """(table, row) of one part."""
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
        yield from layer.measure(*given, processes=options.processes)
        return
    table = TABLE_OF.get(part, part)
    if part == "collective":
        rows = collective.measure(
            *given, processes=options.processes, system=options.system, fabric=options.fabric
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
        rows = measure(*given)
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
