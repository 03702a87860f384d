"""Shared fixtures: a small scenario as TOML text."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def small() -> str:
    """A valid scenario of 16 devices."""
    return (ROOT / "tests" / "properties" / "small.toml").read_text(encoding="utf-8")
