"""The command line: one small module per verb, loaded only when that verb is called.

``main`` is the doorman: it turns a refused input into one message and exit code 2, and Ctrl-C into 130, so that no
user ever meets a traceback for something they typed.
"""

from __future__ import annotations

import sys

import typer

from app.cli import (
    calibrate,
    calibrate_tools,
    catalog,
    compare,
    imports,
    plan,
    run,
    sweep,
    tune,
    validate,
    web,
)

app = typer.Typer(
    help="Predict, explain and plan GPU clusters: step times, queues, failures and cost.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("tune")(tune.tune)
app.command("compare")(compare.compare)
app.command("sweep")(sweep.sweep)
app.add_typer(validate.app, name="validate")
app.command("import")(imports.import_command)
calibrate_tools.add_to(calibrate.app)
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(catalog.app, name="catalog")
app.command("app")(web.app_command)


def main() -> None:
    """Entry point of the ``rackcast`` command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
