"""Shared fixtures: a small scenario as TOML text."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

MAIN = sys.modules["__main__"]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def small() -> str:
    """A valid scenario of 16 devices."""
    return (ROOT / "tests" / "properties" / "small.toml").read_text(encoding="utf-8")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Streamlit's test harness leaves its page as the main module, which processes that are spawned later would run."""
    sys.modules["__main__"] = MAIN
