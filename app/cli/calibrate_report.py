"""``rackcast calibrate report``: how each node of a fleet stands, and the lists a scheduler takes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import Json, print_json, refuse

if TYPE_CHECKING:
    from calibrate.measurements import Measurements

FAILING = 1
"""Exit code when a node fails: the report itself is whole."""

Files = Annotated[list[Path], typer.Argument(help="Measurement files, one a node.", show_default=False)]
Html = Annotated[Path | None, typer.Option(help="Write the report as one HTML file.")]
Out = Annotated[Path | None, typer.Option(help="Folder for passing_nodes.txt and failing_nodes.txt.")]


def report(files: Files, html: Html = None, out: Out = None, json_: Json = False) -> None:
    """Hold every node against its peers, the datasheet and the shipped profile; exit code 1 where a node fails."""
    from app.report.fleet import fleet_html, print_fleet
    from calibrate.measurements import write_text
    from calibrate.report.lists import write_lists

    document = fleet_document(load_nodes(files))
    try:
        if html:
            write_text(html, fleet_html(document))
        for path in write_lists(document, out) if out else ():
            sys.stderr.write(f"wrote {path}\n")
    except OSError as fault:
        refuse(f"cannot write {fault.filename}: {fault.strerror}")
    if json_:
        print_json(document)
    else:
        print_fleet(document)
    if not all(row["passes"] for row in document["nodes"]):
        raise typer.Exit(FAILING)


def load_nodes(files: Sequence[Path]) -> dict[str, Measurements]:
    """Measurements by node, or a refusal with every fault of every file."""
    from calibrate.measurements import MeasurementsError, load
    from calibrate.report.figures import node_name

    nodes: dict[str, Measurements] = {}
    faults = []
    for path in files:
        try:
            measured = load(path)
        except MeasurementsError as fault:
            faults.append(str(fault))
            continue
        name = node_name(measured, path.stem)
        if name in nodes:
            faults.append(f"{path}: node {name!r} comes twice; expected one file a node")
        nodes[name] = measured
    if faults:
        refuse("\n".join(faults))
    return nodes


def fleet_document(nodes: Mapping[str, Measurements]) -> dict[str, Any]:
    """The report of the nodes, with datasheets from the catalogue and the profiles that ship."""
    from app.cli.known_devices import catalogue_devices
    from calibrate.fit import gpu_names
    from calibrate.report.figures import figures
    from calibrate.report.verdicts import document, judge
    from sim.spec.profiles import fits_for

    names = list(dict.fromkeys(name for measured in nodes.values() for name in gpu_names(measured)))
    devices, fits = catalogue_devices(names), fits_for("shipped")
    found = [one for node, measured in nodes.items() for one in figures(node, measured, devices, fits)]
    named: dict[str, list[str]] = {}
    for node, measured in nodes.items():
        ends = tested_pairs(measured)
        if ends:
            named |= {end: named.get(end, []) for end in ends}
        else:
            named[node] = [*named.get(node, []), *known_troubles(measured)]
    return document(judge(found), named)


def tested_pairs(measured: Measurements) -> list[str]:
    """The nodes that a file of pair tests is about; none where it has any other row: then it is of one node."""
    rows = [row for table in measured.tables.values() for row in table]
    if not rows or not all(row.get("between") for row in rows):
        return []
    return sorted({end.strip() for row in rows for end in str(row["between"]).split(",")})


def known_troubles(measured: Measurements) -> list[str]:
    """What a node's file says itself: devices that were stopped, a run that was cut."""
    devices = measured.environment.get("screen") or {}
    troubles = [f"device {device}: {state}" for device, state in devices.items() if state != "measured"]
    if not any(measured.tables.values()):
        troubles.append("nothing was measured")
    elif not measured.complete and measured.environment.get("tool") is None and not troubles:
        troubles.append("the run was cut before its end")
    return troubles
