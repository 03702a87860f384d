"""``rackcast app``: start the Streamlit app on this machine only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def app_command(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 8501,
    address: Annotated[str, typer.Option("--address", help="Address to bind.")] = "127.0.0.1",
) -> None:
    """Open the what-if app in a browser."""
    page = Path(__file__).resolve().parents[1] / "web" / "main.py"
    options = {
        "server.port": port,
        "server.address": address,
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "runner.magicEnabled": "false",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": 64,
        "theme.light.primaryColor": "#0072B2",
        "theme.dark.primaryColor": "#3D8FC6",
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    from streamlit.web import cli

    from app.web import ready

    ready.make()
    typer.echo(f"rackcast app: http://{address}:{port}", err=True)
    cli.main(["run", str(page), *arguments], prog_name="streamlit")
