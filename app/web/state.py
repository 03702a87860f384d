"""What a page asks, as data: a scenario's text, the changes made to it, and how both travel in a link or a command.

Like the order slip of a kitchen: whoever holds it can cook the same dish. Whatever an address or an uploaded file says
is checked by the loader; what is refused is shown, never dropped.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import tomli_w

from sim.spec.faults import Fault, ScenarioError
from sim.spec.loader import MAX_FILE_BYTES, loads
from sim.spec.overrides import override
from sim.spec.scenario import Scenario

DEFAULT = "gpt3-175b-1024-a100"
FIRST = {"training": DEFAULT, "jobs": "cluster-mixed-estate", "demand": "plan-rent-or-buy"}
"""Section that makes a scenario one of a page -> the scenario it opens on."""
DEEPEST = 60
"""Dots between two marks of an uploaded file: more than any key has, and any sentence."""
UPLOADED = "uploaded"
"""The name of an uploaded scenario in a link: the file itself does not fit into one."""

Changes = tuple[tuple[str, str], ...]
"""(path, value as TOML writes it)."""


@dataclass(frozen=True, slots=True)
class Case:
    """One question: a scenario and what was changed in it."""

    name: str
    """Of a scenario that ships, or of the uploaded file."""
    text: str
    """Its TOML."""
    changes: Changes = ()
    uploaded: bool = False

    @property
    def overrides(self) -> list[str]:
        """As ``--set`` takes them."""
        return [f"{path}={value}" for path, value in self.changes]

    @property
    def file(self) -> str:
        """The name for messages and commands."""
        return self.name if self.uploaded else f"scenarios/{self.name}.toml"

    def words(self, title: str) -> str:
        """A label: the title, and the changes."""
        return ", ".join([title, *(f"{path.rpartition('.')[2]} {value}" for path, value in self.changes)])


def worked_examples(section: str = "") -> list[str]:
    """Names of the scenarios that ship, without their ending; only those with a section where one is named."""
    return [name for name, (sections, _) in _shelf().items() if not section or section in sections]


def title_of(name: str) -> str:
    """The title of a scenario that ships; the name itself where there is none."""
    return _shelf().get(name, (frozenset(), name))[1]


@cache
def _shelf() -> dict[str, tuple[frozenset[str], str]]:
    """Sections and title of every scenario that ships."""
    found = {}
    for entry in sorted(files("scenarios").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            document = tomllib.loads(entry.read_text(encoding="utf-8"))
            found[entry.name.removesuffix(".toml")] = (frozenset(document), str(document.get("name", "")))
    return found


def scenario_text(name: str) -> str:
    """The TOML of a shipped scenario.

    Raises:
        ScenarioError: no such scenario.
    """
    if name not in worked_examples():
        raise ScenarioError(
            [Fault("address", "scenario", name, f"expected one of {', '.join(worked_examples())}")]
        )
    return (files("scenarios") / f"{name}.toml").read_text(encoding="utf-8")


def shipped(name: str, changes: Mapping[str, object] | None = None) -> Case:
    """A shipped scenario with changes."""
    return Case(name, scenario_text(name), as_changes(changes or {}))


def as_changes(values: Mapping[str, object]) -> Changes:
    """Widgets' values as TOML writes them, in the order of their paths."""
    return tuple(sorted((path, toml_value(value)) for path, value in values.items()))


def resolve(case: Case) -> Scenario:
    """The scenario of a case; see :func:`sim.spec.loader.loads`. An uploaded one may name no file of this machine."""
    scenario = loads(case.text, case.file, case.overrides)
    if case.uploaded and (faults := list(_files_named(scenario, case.file))):
        raise ScenarioError(faults)
    return scenario


def _files_named(scenario: Scenario, where: str) -> Iterable[Fault]:
    """Fields that would make the server read a file of its own."""
    told = "is not read from an uploaded scenario, which may name no file: run it with the command line"
    if scenario.profile not in ("shipped", "ideal"):
        yield Fault(where, "profile", scenario.profile, f"{told}; expected shipped or ideal")
    if scenario.jobs is not None and scenario.jobs.trace:
        yield Fault(where, "jobs.trace", scenario.jobs.trace, told)
    if scenario.policy.function:
        yield Fault(where, "policy.function", scenario.policy.function, told)


def uploaded_text(content: bytes, name: str, most: int = MAX_FILE_BYTES) -> str:
    """The text of an uploaded file, whatever it is.

    Raises:
        ScenarioError: empty, too large, or no UTF-8 text; nothing of it is used.
    """
    told = ""
    if not content.strip():
        told = "is empty"
    elif len(content) > most:
        told = f"is larger than {most:,} bytes ({len(content):,}): not such a file"
    elif b"\0" in content:
        told = "is not text but binary data"
    if told:
        raise ScenarioError([Fault(name, "", None, told)])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ScenarioError([Fault(name, "", None, "is not UTF-8 text")]) from None


def uploaded_case(content: bytes, name: str) -> Case:
    """An uploaded scenario, checked whole before anything is run.

    Raises:
        ScenarioError: every fault in it.
    """
    label = re.sub(r"[^\w .()-]", "_", name)[-80:] or "upload.toml"
    case = Case(label, uploaded_text(content, label), uploaded=True)
    too_deep = ScenarioError([Fault(label, "", None, "is nested too deeply for a scenario")])
    # a parser's time grows with the square of a dotted key's length: no key of a scenario has ten parts
    if any(part.count(".") > DEEPEST for part in re.split(r"[={}\[\],\n]", case.text)):
        raise too_deep
    try:
        resolve(case)
    except RecursionError:
        raise too_deep from None
    return case


def sections(case: Case) -> frozenset[str]:
    """Top-level tables of a case that loads."""
    return frozenset(tomllib.loads(case.text))


def toml_text(case: Case) -> str:
    """The scenario as a file: as written where nothing was changed, else with the changes in it (without comments)."""
    if not case.changes:
        return case.text
    document = tomllib.loads(case.text)
    for item in case.overrides:
        override(document, item)
    return tomli_w.dumps(document)


def command(case: Case, verb: str = "run", *options: str) -> str:
    """The command line that gives the same answer."""
    words = [f"rackcast {verb} {quoted(case.file)}", *(f"--set {quoted(item)}" for item in case.overrides)]
    return " ".join([*words, *options])


def quoted(text: str) -> str:
    """A word for a shell; quoted where it has more than letters, digits and the usual marks."""
    return text if re.fullmatch(r"[\w./=+:@%-]+", text) else "'" + text.replace("'", "'\\''") + "'"


def toml_value(value: object) -> str:
    """A widget's value as TOML writes it; text that is no TOML is taken as text by the loader."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def packed(case: Case) -> str:
    """A case for a link: ``name;path=value;...``; only of a scenario that ships."""
    return ";".join([UPLOADED if case.uploaded else case.name, *case.overrides])


def unpacked(text: str, allowed: Iterable[str]) -> Case:
    """The case of a link.

    Args:
        allowed: paths that a link may change.

    Raises:
        ScenarioError: an unknown scenario, a path that a link may not change, or a value that is no good.
    """
    name, *items = text.split(";")
    pairs = [item.partition("=")[::2] for item in items]
    if name == UPLOADED:
        told = "names an uploaded file, which no link can carry: upload it again"
        raise ScenarioError([Fault("address", "case", text, told)])
    known = set(allowed)
    faults = [
        Fault("address", path, value, "is no change that a link can make")
        for path, value in pairs
        if path not in known
    ]
    base = scenario_text(name)
    if faults:
        raise ScenarioError(faults)
    case = Case(name, base, tuple(sorted(pairs)))
    resolve(case)
    return case


def plain(text: Any) -> str:
    """Text of a user's for a place that reads Markdown: no mark of it is more than a character."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~$:^&])", r"\\\1", str(text))
