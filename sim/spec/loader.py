"""The boundary: TOML comes in, a frozen ``Scenario`` goes out, or one list of everything that is wrong.

Like passport control: every traveller is checked once, here, and nobody further inside asks again. The checks are
derived from the nouns themselves (types, bounds and units by name), so a field is described in one place.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, cast

import pydantic
from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from sim import units
from sim.spec.checks import cross_faults
from sim.spec.cluster_checks import cluster_faults
from sim.spec.entries import UNRESOLVED, catalogue_entry, own_accelerator
from sim.spec.faults import Fault, ScenarioError, key_path
from sim.spec.keys import hints, members, siblings, unknown_key
from sim.spec.overrides import override
from sim.spec.plan_checks import plan_faults
from sim.spec.quantiles import Quantiles
from sim.spec.scenario import Pool, Scenario
from sim.spec.workload import SampleModel, Training

MAX_FILE_BYTES = 2_000_000
"""A scenario is written by a person; anything larger is some other file."""


def load(path: str | Path, overrides: Iterable[str] = ()) -> Scenario:
    """Read a scenario file, apply ``overrides`` (``"cluster.pools.0.nodes=64"``) and freeze it.

    Raises:
        ScenarioError: every fault found, each with file, key, value and expectation.
    """
    where = str(path)
    try:
        raw = Path(path).read_bytes()[: MAX_FILE_BYTES + 1]
    except OSError as fault:
        raise ScenarioError([Fault(where, "", None, f"cannot be read: {fault.strerror}")]) from None
    if len(raw) > MAX_FILE_BYTES:
        raise ScenarioError(
            [Fault(where, "", None, f"is larger than {MAX_FILE_BYTES:,} bytes: not a scenario file")]
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ScenarioError([Fault(where, "", None, "is not UTF-8 text")]) from None
    return loads(text, where, overrides)


def loads(text: str, where: str = "scenario", overrides: Iterable[str] = ()) -> Scenario:
    """Like :func:`load`, from TOML text.

    A published measurement holds for the file as written: where an override changes the cluster or the training it is
    left out, since it is no longer what was measured.
    """
    changes = list(overrides)
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as fault:
        raise ScenarioError([Fault(where, "", None, f"is not valid TOML: {fault}")]) from None
    refused = [told for item in changes if (told := override(document, item)) is not None]
    if refused:
        raise ScenarioError(refused)
    scenario = resolve(document, where)
    if any(item.partition("=")[0].split(".")[0].strip() in ("cluster", "training") for item in changes):
        scenario = dataclasses.replace(scenario, published=())
    return scenario


def document_of(path: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The tables of a scenario file that loads, with ``overrides`` applied."""
    document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    for item in overrides:
        override(document, item)
    return document


def resolve(document: Mapping[str, Any], where: str = "scenario") -> Scenario:
    """Check a parsed document and freeze it; see :func:`load`."""
    faults: list[Fault] = []
    sections: dict[str, Any] = {}
    known = {field.name: field for field in dataclasses.fields(Scenario)}
    faults += [
        Fault(where, key_path([key]), value, unknown_key(key, known))
        for key, value in document.items()
        if key not in known
    ]
    for name, field in known.items():
        if name in document:
            sections[name], found = _section(name, document[name], where)
            faults += found
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append(Fault(where, name, None, f"is required: {field.metadata.get('meaning', '')}"))
    faults += _missing(document, where)
    if "cluster" in document:
        faults += cross_faults(sections.get("cluster"), sections.get("training"), where)
    faults += cluster_faults(sections, where)
    faults += plan_faults(sections.get("demand"), sections.get("supply"), where)
    if faults:
        raise ScenarioError(faults)
    return Scenario(**sections)


def _missing(document: Mapping[str, Any], where: str) -> Iterator[Fault]:
    """Sections that others cannot do without."""
    asked = [name for name in ("training", "jobs", "demand") if name in document]
    if not asked:
        yield Fault(
            where,
            "training",
            None,
            "is required, or [jobs] or [demand]: nothing is asked without one of them",
        )
    if "cluster" not in document and asked != ["demand"]:
        yield Fault(where, "cluster", None, "is required: the nodes, as [[cluster.pools]]")
    if "demand" in document and "supply" not in document:
        yield Fault(where, "supply", None, "is required beside [demand]: the options to choose from")


def _section(name: str, value: Any, where: str) -> tuple[Any, list[Fault]]:
    model = _section_model(name)
    try:
        checked = model.model_validate({name: value})
    except pydantic.ValidationError as error:
        return None, [_fault(item, where) for item in error.errors() if item["input"] != UNRESOLVED]
    try:
        return _freeze(hints(Scenario)[name], getattr(checked, name)), []
    except ValueError as fault:  # a catalogue noun refuses values that cannot go together
        return None, [Fault(where, name, None, str(fault))]


@cache
def _section_model(name: str) -> type[pydantic.BaseModel]:
    field = next(f for f in dataclasses.fields(Scenario) if f.name == name)
    annotation, _ = _annotation(name, hints(Scenario)[name], field.metadata)
    return pydantic.create_model(f"Section_{name}", __config__=_CONFIG, **{name: (annotation, ...)})  # type: ignore[call-overload,no-any-return]


_CONFIG = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


@cache
def _boundary(noun: type) -> type[pydantic.BaseModel]:
    """The pydantic model that guards a frozen noun."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(noun):
        annotation, optional = _annotation(field.name, hints(noun)[field.name], field.metadata)
        default: Any = ...
        if (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
            or optional
        ):
            default = _UNSET
        fields[field.name] = (annotation, Field(default=default))
    model = pydantic.create_model(noun.__name__, __config__=_CONFIG, **fields)
    return cast(type[pydantic.BaseModel], model)


class _Unset:
    """Marks a key that the file leaves to the noun's own default."""


_UNSET = _Unset()


def _annotation(name: str, hint: Any, metadata: Mapping[str, Any]) -> tuple[Any, bool]:
    """Pydantic annotation of one field, and whether it may be left out (a file has no way to write None)."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    optional = type(None) in members
    core = [member for member in members if member is not type(None)]
    if kind := metadata.get("catalogue"):
        annotation: Any = _catalogued(kind, core)
    elif typing.get_origin(core[0]) is tuple:
        inner, _ = _annotation(name, typing.get_args(core[0])[0], metadata)
        annotation = list[inner]  # type: ignore[valid-type]
    elif typing.get_origin(core[0]) is not None:  # a mapping such as number format -> FLOP/s
        annotation = dict[str, _scalar(name, float, metadata)]  # type: ignore[misc]
    elif core[0] is Quantiles:
        annotation = Annotated[Quantiles, BeforeValidator(lambda value: _quantiles(value, name, metadata))]
    elif dataclasses.is_dataclass(core[0]):
        annotation = _boundary(core[0])  # type: ignore[arg-type]
        if core[0] is Pool:
            annotation = Annotated[annotation, BeforeValidator(own_accelerator)]
        elif core[0] is Training:
            annotation = Annotated[annotation, BeforeValidator(_searched_plan)]
    else:
        annotation = _scalar(name, core[0], metadata)
    return annotation, optional


def _scalar(name: str, kind: Any, metadata: Mapping[str, Any]) -> Any:
    if options := metadata.get("options"):
        return Annotated[str, BeforeValidator(lambda value: _word(value, options))]
    if kind is float:
        return Annotated[float, BeforeValidator(lambda value: _number(value, name, metadata))]
    if kind is int:
        return Annotated[int, Field(ge=metadata.get("low", 0), le=metadata.get("high", 10**15))]
    return kind


def _word(value: Any, options: Sequence[str]) -> str:
    if isinstance(value, str) and value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"expected one of {', '.join(options)}{hint}")


def _number(value: Any, name: str, metadata: Mapping[str, Any]) -> float:
    dimension = units.dimension_of(name) or units.COUNT
    number = units.parse(value, dimension)
    low, high = metadata.get("low"), metadata.get("high")
    if low is not None and (number < low or (metadata.get("above") and number <= low)):
        raise ValueError(f"expected {'more than' if metadata.get('above') else 'at least'} {low:g}")
    if high is not None and number > high:
        raise ValueError(f"expected at most {high:g}")
    return number


def _quantiles(value: Any, name: str, metadata: Mapping[str, Any]) -> Quantiles:
    """One value, or three: P10, P50, P90."""
    if not isinstance(value, list):
        return Quantiles.exactly(_number(value, name, metadata))
    if len(value) != 3:
        raise ValueError("expected one value, or [low, mid, high]")
    low, mid, high = (_number(item, name, metadata) for item in value)
    if not low <= mid <= high:
        raise ValueError("expected low <= mid <= high")
    return Quantiles(low, mid, high)


def _catalogued(kind: str, nouns: Sequence[type]) -> Any:
    """A catalogue name, or a table: written out whole, or ``base = "name"`` with changes."""
    entry: Any = Annotated[_boundary(nouns[0]), BeforeValidator(lambda value: catalogue_entry(kind, value))]
    if SampleModel not in nouns:
        return entry

    def which(value: Any) -> str:
        by_arithmetic = isinstance(value, Mapping) and "sample_flop" in value and "base" not in value
        return "sample" if by_arithmetic else "entry"

    either: Any = Annotated[entry, Tag("entry")] | Annotated[_boundary(SampleModel), Tag("sample")]
    return Annotated[either, Discriminator(which)]


def _searched_plan(training: Any) -> Any:
    """``plan = "auto"`` leaves the plan to a search."""
    plan = training.get("plan") if isinstance(training, Mapping) else None
    if (
        isinstance(plan, Mapping) and plan.get("base") == "auto"
    ):  # --set training.plan.tensor=8 on an open plan
        kept = ", ".join(f"{key} = {value}" for key, value in plan.items() if key != "base")
        raise ValueError(
            f'plan = "auto" leaves all of it to the search; for a plan of your own: plan = {{{kept}}}'
        )
    if plan == "auto":
        return {**{key: value for key, value in training.items() if key != "plan"}, "auto_plan": True}
    return training


def _freeze(hint: Any, value: Any) -> Any:
    """A checked pydantic value as the frozen noun it guards."""
    if isinstance(value, list):
        inner = next((a for a in members(hint) if typing.get_origin(a) is tuple), hint)
        item = typing.get_args(inner)[0] if typing.get_args(inner) else Any
        return tuple(_freeze(item, entry) for entry in value)
    if not isinstance(value, pydantic.BaseModel):
        return value
    nouns = [cast(type, member) for member in members(hint) if dataclasses.is_dataclass(member)]
    noun = next(member for member in nouns if _boundary(member) is type(value))
    types_of = hints(noun)
    given = {name: getattr(value, name) for name in type(value).model_fields}
    kept = {name: _freeze(types_of[name], item) for name, item in given.items() if item is not _UNSET}
    return noun(**kept)


def _fault(item: Any, where: str) -> Fault:
    path = key_path([part for part in item["loc"] if part not in ("entry", "sample")])
    kind, value = item["type"], item["input"]
    if kind == "missing":
        return Fault(where, path, None, "is required")
    if kind == "extra_forbidden":
        return Fault(
            where, path, value, unknown_key(str(item["loc"][-1]), siblings(item["loc"]), str(item["loc"][0]))
        )
    words = {
        "model_type": "expected a table",
        "dict_type": "expected a table",
        "list_type": "expected a list",
    }
    text = (
        str(item.get("ctx", {}).get("error", "")) if kind == "value_error" else words.get(kind, item["msg"])
    )
    text = text.removeprefix(repr(value)).lstrip(" :;")  # the fault shows the value itself
    return Fault(where, path, value, text.replace("Input should be", "expected").replace("Input", "input"))
