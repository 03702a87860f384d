"""The catalogue: a shelf of name plates. Ask it for an accelerator, a system or a model and get the noun.

The shelf is three TOML files in ``scenarios/catalog`` that people edit; quantities there carry their unit.
Names are found by key, alias or full name in any case; a misspelt one is answered with the nearest.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib.resources
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from sim import units
from sim.spec.hardware import Accelerator, System
from sim.spec.model import Model

Noun = TypeVar("Noun", Accelerator, System, Model)


class CatalogError(ValueError):
    """A catalogue file that cannot be used; the message lists every fault with its place."""


class UnknownName(KeyError):  # noqa: N818 - it reads as what it says
    """A name the catalogue does not have; ``nearest`` holds the names that look like it."""

    def __init__(self, kind: str, name: str, nearest: Sequence[str]) -> None:
        super().__init__(name)
        self.kind = kind
        self.name = name
        self.nearest = tuple(nearest)

    def __str__(self) -> str:
        hint = f"; nearest: {', '.join(self.nearest)}" if self.nearest else ""
        return f"no {self.kind} is called {self.name!r}{hint}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """All known accelerators, systems and models, by key, in the order of the files."""

    accelerators: Mapping[str, Accelerator] = field(hash=False)
    systems: Mapping[str, System] = field(hash=False)
    models: Mapping[str, Model] = field(hash=False)

    def accelerator_names(self) -> dict[str, Accelerator]:
        """Every key and alias with its accelerator: to resolve whole columns of names."""
        return {name: a for a in self.accelerators.values() for name in (a.key, *a.aliases)}

    def accelerator(self, name: str) -> Accelerator:
        """The accelerator of that key, alias or full name (any case).

        Raises:
            UnknownName: there is none; the message names the nearest.
        """
        return _lookup("accelerator", self.accelerators, name)

    def system(self, name: str) -> System:
        """The system of that key or full name; raises :class:`UnknownName` as :meth:`accelerator` does."""
        return _lookup("system", self.systems, name)

    def model(self, name: str) -> Model:
        """The model of that key or full name; raises :class:`UnknownName` as :meth:`accelerator` does."""
        return _lookup("model", self.models, name)


@functools.cache
def load_catalog() -> Catalog:
    """The catalogue that ships with rackcast, read once.

    Raises:
        CatalogError: a file has faults; all of them are listed.
    """
    folder = importlib.resources.files("scenarios") / "catalog"
    text = {
        name: (folder / f"{name}.toml").read_text("utf-8") for name in ("accelerators", "systems", "models")
    }
    return catalog_from(text["accelerators"], text["systems"], text["models"])


def catalog_from(accelerators: str, systems: str, models: str) -> Catalog:
    """A catalogue from the text of three TOML documents; raises :class:`CatalogError` with every fault."""
    faults: list[str] = []
    catalog = Catalog(
        _nouns(Accelerator, _tables(accelerators, "accelerators", faults), "accelerators", faults),
        _nouns(System, _tables(systems, "systems", faults), "systems", faults),
        _nouns(Model, _model_tables(_tables(models, "models", faults), faults), "models", faults),
    )
    for system in catalog.systems.values():
        if system.accelerator not in catalog.accelerators:
            near = _nearest(system.accelerator, catalog.accelerators)
            faults.append(
                f"systems.{system.key}.accelerator: {UnknownName('accelerator', system.accelerator, near)}"
            )
    faults += _repeated_names(catalog)
    if faults:
        raise CatalogError("\n".join(faults))
    return catalog


def noun_from(noun: type[Noun], key: str, table: Mapping[str, Any]) -> Noun:
    """One entry from a TOML table whose quantities may carry units; ``key`` becomes its key.

    Raises:
        CatalogError: unknown, missing or ill-typed fields, a value that cannot be; every fault is listed.
    """
    faults: list[str] = []
    hints = get_type_hints(noun)
    known = {f.name: f for f in dataclasses.fields(noun) if f.name != "key"}
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            faults.append(f"{key}.{name}: unknown field" + (f", did you mean {near[0]!r}?" if near else ""))
            continue
        try:
            values[name] = _value(name, value, hints[name])
        except ValueError as fault:
            faults.append(f"{key}.{name}: {fault}")
    for name, known_field in known.items():
        required = (
            known_field.default is dataclasses.MISSING and known_field.default_factory is dataclasses.MISSING
        )
        if required and name not in table:
            faults.append(f"{key}.{name}: missing")
    if faults:
        raise CatalogError("\n".join(faults))
    try:
        return noun(key=key, **values)
    except ValueError as fault:
        raise CatalogError(str(fault)) from None


def _value(name: str, value: object, hint: object) -> object:
    """``value`` as the field wants it; the unit comes from the field's name."""
    dimension = units.dimension_of(name)
    if isinstance(value, Mapping):
        if dimension is None:
            raise ValueError(f"{value!r} is a table; expected a single value")
        return {str(k): units.parse(v, dimension) for k, v in value.items()}
    if dimension is not None and "Mapping" not in str(hint):
        return units.parse(value, dimension)
    wanted = str(hint)
    if "tuple" in wanted and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if "bool" in wanted and isinstance(value, bool):
        return value
    if "int" in wanted and isinstance(value, int) and not isinstance(value, bool):
        return value
    if "float" in wanted and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if "str" in wanted and "tuple" not in wanted and isinstance(value, str):
        return value
    raise ValueError(f"{value!r} is not {wanted.removeprefix('<class ').strip('<>')}")


def _tables(text: str, where: str, faults: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        faults.append(f"{where}: not TOML ({fault})")
        return {}


def _model_tables(families: Mapping[str, Any], faults: list[str]) -> dict[str, dict[str, Any]]:
    """One table per model from tables per family.

    A family's fields hold for all its models; the first row of ``models`` names the columns of the rest (an
    empty cell says nothing); ``sources`` and ``notes`` hold the long texts of single models.
    """
    tables: dict[str, dict[str, Any]] = {}
    for family, table in families.items():
        rows = table.get("models") if isinstance(table, Mapping) else None
        if not isinstance(rows, list) or not rows or rows[0][:1] != ["key"]:
            faults.append(f'models.{family}: expected models = [["key", column, ...], [...], ...]')
            continue
        shared = {"family": family} | {
            k: v for k, v in table.items() if k not in ("models", "sources", "notes")
        }
        texts = {"source": dict(table.get("sources", {})), "note": dict(table.get("notes", {}))}
        for row in rows[1:]:
            if len(row) != len(rows[0]):
                faults.append(
                    f"models.{family}: row {row[:1]} has {len(row)} cells for {len(rows[0])} columns"
                )
                continue
            key, *cells = row
            if key in tables:
                faults.append(f"models.{family}: {key!r} appears twice")
            own = {name: cell for name, cell in zip(rows[0][1:], cells, strict=True) if cell != ""}
            own |= {name: by_key.pop(key) for name, by_key in texts.items() if key in by_key}
            tables[key] = shared | own
        strays = [f"{name}s.{key}" for name, by_key in texts.items() for key in by_key]
        faults += [f"models.{family}.{stray}: no such model in this family" for stray in strays]
    return tables


def _nouns(noun: type[Noun], tables: Mapping[str, Any], where: str, faults: list[str]) -> dict[str, Noun]:
    nouns = {}
    for key, table in tables.items():
        try:
            nouns[key] = noun_from(noun, key, table)
        except CatalogError as fault:
            faults += [f"{where}.{line}" for line in str(fault).splitlines()]
    return nouns


def _names(entry: Accelerator | System | Model) -> tuple[str, ...]:
    return (entry.key, entry.name, *getattr(entry, "aliases", ()))


def _repeated_names(catalog: Catalog) -> list[str]:
    faults = []
    for where, entries in (
        ("accelerators", catalog.accelerators),
        ("systems", catalog.systems),
        ("models", catalog.models),
    ):
        owner: dict[str, str] = {}
        for entry in entries.values():
            for name in _names(entry):
                first = owner.setdefault(name.casefold(), entry.key)
                if first != entry.key:
                    faults.append(f"{where}.{entry.key}: {name!r} is also a name of {first}")
    return faults


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    by_folded = {candidate.casefold(): candidate for candidate in names}
    folded = name.casefold()
    near = difflib.get_close_matches(folded, by_folded, n=3, cutoff=0.6)
    near += [candidate for candidate in by_folded if folded in candidate and candidate not in near][
        : 3 - len(near)
    ]
    return [by_folded[candidate] for candidate in near]


def _lookup(kind: str, entries: Mapping[str, Noun], name: str) -> Noun:
    if name in entries:
        return entries[name]
    folded = name.casefold()
    for entry in entries.values():
        if folded in (known.casefold() for known in _names(entry)):
            return entry
    raise UnknownName(
        kind, name, _nearest(name, [known for entry in entries.values() for known in _names(entry)])
    )
