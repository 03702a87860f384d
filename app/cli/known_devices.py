"""Devices that the catalogue and the shipped profiles know, by the names that drivers use: the index of the book."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.spec.device import Device
    from sim.spec.profile import Fit


def shipped_fits() -> tuple[Fit, ...]:
    """The fits that ship: what a fit of this machine leans on where it has its generation."""
    from sim.spec.profiles import fits_for

    return fits_for("shipped")


def catalogue_devices(gpus: list[str]) -> dict[str, Device]:
    """Datasheets of those device names that the catalogue knows, by key, alias, or as drivers spell them."""
    from sim.spec.catalog import load_catalog

    accelerators = load_catalog().accelerators
    words = {key: _words(" ".join((key, one.name, *one.aliases))) for key, one in accelerators.items()}
    found = {}
    for gpu in gpus:
        key = _match(gpu, words)
        if key is not None:
            found[gpu] = accelerators[key].device()
    return found


def _match(gpu: str, words: dict[str, set[str]]) -> str | None:
    """The one key whose words hold all of the name's (``NVIDIA H100 80GB HBM3``); None if none or several.

    Drivers name the form factor of cards (PCIe, NVL), not always of modules: a name without one is a module.
    Processors are left to their stand-ins: what is measured is seldom the whole socket of a datasheet.
    """
    wanted = _words(gpu)
    others = {"pcie", "nvl", "cpu"} - wanted
    fits = [key for key, have in words.items() if wanted and wanted <= have and not others & have]
    return fits[0] if len(fits) == 1 else None


def _words(name: str) -> set[str]:
    ignored = {
        "nvidia",
        "amd",
        "tesla",
        "instinct",
        "geforce",
        "edition",
        "ac",
        "hbm2",
        "hbm2e",
        "hbm3",
        "hbm3e",
    }
    text = re.sub(r"sxm\d", "sxm", name.lower())
    return set(re.findall(r"[a-z0-9]+", text)) - ignored
