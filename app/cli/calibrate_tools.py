"""The verbs of ``rackcast calibrate`` beside measuring and fitting: a belt of tools hung on the same hook."""

from __future__ import annotations

import typer

from app.cli import import_logs


def add_to(app: typer.Typer) -> None:
    """Hang the verbs on ``rackcast calibrate``."""
    app.command("import")(import_logs.import_logs)
