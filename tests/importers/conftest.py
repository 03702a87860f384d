"""What tests of importers share: a text as a file of a kind, and the samples beside the repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sim.importers.imported import Imported
from sim.importers.kinds import Options, import_files

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
Read = Callable[..., Imported]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """``read(kind, *texts, options=None)``: each text as a file, imported together."""

    def import_texts(kind: str, *texts: str | bytes, options: Options | None = None) -> Imported:
        files = []
        for number, text in enumerate(texts):
            file = tmp_path / f"file{number or ''}.txt"
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
            files.append(file)
        return import_files(kind, files, options)

    return import_texts


@pytest.fixture(scope="session")
def shared() -> Callable[..., Path]:
    """``shared(*parts)``: a file beside the repository, or a skip."""

    def find(*parts: str) -> Path:
        path = SHARED.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"{'/'.join(parts)} is not beside the repository")
        return path

    return find


@pytest.fixture(scope="session")
def histories() -> Path:
    """The folder of our own small files."""
    return Path(__file__).parent / "fixtures" / "histories"
