"""``rackcast catalog``: leaf through the shelf of accelerators, systems and models, with their sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import Json, print_json, refuse

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    help="Known accelerators, systems and models, every number with unit, source and kind.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

KINDS = ("accelerators", "systems", "models")
_WORDS = (
    "key",
    "name",
    "aliases",
    "vendor",
    "family",
    "source",
    "kind",
    "params_kind",
    "assumed",
    "cross_check",
    "note",
)


@app.command("list")
def list_entries(
    kind: Annotated[
        str | None, typer.Argument(help="accelerators, systems or models; all where absent.")
    ] = None,
    json: Json = False,
) -> None:
    """List what the catalogue knows."""
    import difflib

    from sim.spec.catalog import load_catalog

    wanted = [known for known in KINDS if kind is None or kind.lower().removesuffix("s") + "s" == known]
    if not wanted:
        near = "".join(f"; nearest: {n}" for n in difflib.get_close_matches(str(kind), KINDS, n=1))
        refuse(f"{kind!r} is no part of the catalogue; expected {', '.join(KINDS)}{near}")
    catalog = load_catalog()
    entries = {part: list(getattr(catalog, part).values()) for part in wanted}
    if json:
        document = {part: [entry_document(noun) for noun in nouns] for part, nouns in entries.items()}
        print_json(document)
        return
    from app.report.console import screen

    console = screen(200)
    for part, nouns in entries.items():
        console.print(_overview(part, nouns))


@app.command("show")
def show_entry(
    name: Annotated[str, typer.Argument(help="Key, alias or full name, in any case.")],
    json: Json = False,
) -> None:
    """Show one entry: every constant with its unit, kind and source."""
    from sim.spec.catalog import UnknownName, load_catalog

    catalog = load_catalog()
    nearest: list[str] = []
    for look_up in (catalog.accelerator, catalog.system, catalog.model):
        try:
            noun = look_up(name)
        except UnknownName as unknown:
            nearest += unknown.nearest
            continue
        if json:
            print_json(entry_document(noun))
        else:
            _print_entry(noun)
        return
    near = _closest(name, nearest)
    refuse(
        f"no accelerator, system or model is called {name!r}"
        + (f"; nearest: {', '.join(near)}" if near else "")
    )


def _closest(name: str, candidates: list[str]) -> list[str]:
    import difflib

    folded = {candidate.casefold(): candidate for candidate in candidates}
    best = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.0)
    return [folded[candidate] for candidate in best]


def _constants(noun: Any) -> list[tuple[str, Any]]:
    """(field, value) of every number and setting that is known, mappings spread out."""
    import dataclasses
    from collections.abc import Mapping

    rows: list[tuple[str, Any]] = []
    for spec in dataclasses.fields(noun):
        value = getattr(noun, spec.name)
        if (
            spec.name in _WORDS
            or value is None
            or value == ""
            or (value is not True and value == spec.default)
        ):
            continue
        if isinstance(value, Mapping):
            rows += [(f"{spec.name}.{name}", item) for name, item in value.items()]
        else:
            rows.append((spec.name, value))
    return rows


def _kind_of(noun: Any, field: str) -> str:
    if hasattr(noun, "kind_of"):
        return "assumed" if field in noun.assumed else str(noun.kind_of(field.partition(".")[0]))
    return str(noun.params_kind) if field == "params_total" else "datasheet"


def entry_document(noun: Any) -> dict[str, Any]:
    """The entry as JSON: words as they are, every constant with value (SI), unit, kind and source."""
    from sim import units

    document: dict[str, Any] = {"part": type(noun).__name__.lower()}
    for word in _WORDS:
        value = getattr(noun, word, "")
        if value not in ("", ()):
            document[word] = list(value) if isinstance(value, tuple) else value
    constants = {}
    for field, value in _constants(noun):
        dimension = units.dimension_of(field.partition(".")[0])
        unit = _SI_UNITS.get(dimension.suffix, "1") if dimension else "1"
        unit = "OP/s" if field.endswith(".int8") else unit
        constants[field] = {
            "value": value,
            "unit": unit,
            "kind": _kind_of(noun, field),
            "source": noun.source,
        }
        if isinstance(value, str):
            del constants[field]["unit"]
    return document | {"constants": constants} | _derived(noun)


_SI_UNITS = {"bytes": "B", "bytes_per_s": "B/s", "flop_per_s": "FLOP/s", "hz": "Hz", "w": "W"}


def _derived(noun: Any) -> dict[str, Any]:
    """What the shape of a model gives."""
    if not hasattr(noun, "kv_values_per_token"):
        return {}
    from sim.spec.parameter_count import NotCountable, active_weights, weights

    try:
        counted = weights(noun)
    except NotCountable as reason:
        return {"counted": {"not_countable": str(reason)}}
    difference = 100 * (counted.total / noun.params_total - 1)
    return {
        "counted": {
            "params_total": counted.total,
            "difference_pct": round(difference, 4),
            "params_active": active_weights(noun).total,
            "kv_values_per_token": noun.kv_values_per_token,
        }
    }


def shown(field: str, value: Any) -> str:
    """A constant for people: ``"3.35 TB/s"``."""
    from sim import units

    dimension = units.dimension_of(field.partition(".")[0])
    if isinstance(value, bool):
        return "yes" if value else "no"
    if dimension is None or isinstance(value, str):
        return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
    if dimension is units.BYTES_PER_S and field.startswith("nic"):
        return f"{value * 8 / 1e9:g} Gbit/s"
    text = units.format_quantity(value, dimension, 4)
    return text.replace("FLOP/s", "OP/s") if field.endswith("int8") else text


def _print_entry(noun: Any) -> None:
    from rich.markup import escape

    from app.report.console import plain_table, screen

    console = screen(200)
    aliases = getattr(noun, "aliases", ())
    also = f" (also {', '.join(aliases)})" if aliases else ""
    console.print(f"[bold]{escape(noun.name)}[/bold]  {escape(noun.key)}{escape(also)}")
    table = plain_table("constant", "value", "kind", text=("kind",))
    for field, value in _constants(noun):
        table.add_row(escape(field), escape(shown(field, value)), _kind_of(noun, field))
    counted = _derived(noun).get("counted", {})
    reason = counted.pop("not_countable", "")
    for field, value in counted.items():
        table.add_row(f"counted {field}", escape(shown(field, value)), "from the shape")
    console.print(table)
    if reason:
        console.print(escape(reason), soft_wrap=True)
    for word in ("source", "cross_check", "note"):
        text = getattr(noun, word, "")
        if text:
            console.print(f"{word.replace('_', ' ')}: {escape(text)}", soft_wrap=True)


def _overview(part: str, nouns: list[Any]) -> Table:
    from rich.table import Table

    columns = {
        "accelerators": {
            "generation": "generation",
            "memory": "memory_bytes",
            "bandwidth": "memory_bytes_per_s",
            "bf16": "bf16",
            "power": "tdp_w",
            "kind": "kind",
        },
        "systems": {
            "accelerator": "accelerator",
            "GPUs": "gpus_per_node",
            "NICs": "nics_per_node",
            "NIC": "nic_bytes_per_s",
            "fabric": "fabric_name",
            "kind": "kind",
        },
        "models": {
            "kind": "kind",
            "layers": "layers",
            "hidden": "hidden",
            "vocab": "vocab",
            "parameters": "params_total",
            "counted as": "params_kind",
        },
    }[part]
    table = Table(
        title=f"{len(nouns)} {part}", title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for column in ("key", *columns):
        table.add_column(column, no_wrap=column == "key")
    for noun in nouns:
        table.add_row(noun.key, *(_cell(noun, field) for field in columns.values()))
    return table


def _cell(noun: Any, column: str) -> str:
    from sim import units

    if column == "bf16":
        rate = noun.flop_per_s.get("bf16")
        return units.format_flop_per_s(rate, 4) if rate else "-"
    value = getattr(noun, column)
    if column == "params_total":
        return units.format_count(value, 4)
    return shown(column, value) if value not in (None, "", 0) else "-"
