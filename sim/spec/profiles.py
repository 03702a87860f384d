"""The profiles that ship with rackcast, and a user's own in front of them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from sim.spec.profile import Fit, Profile, ProfileError, from_json, load


@cache
def shipped() -> tuple[Profile, ...]:
    """Every profile under scenarios/profiles, by file name."""
    folder = files("scenarios") / "profiles"
    entries = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".json")), key=lambda entry: entry.name
    )
    return tuple(from_json(entry.read_text(encoding="utf-8"), entry.name) for entry in entries)


@cache
def fits_for(name: str) -> tuple[Fit, ...]:
    """The fits a scenario uses: ``shipped``, ``ideal`` (none), or a profile file in front of the shipped ones.

    Raises:
        ProfileError: the file is missing or is not a profile.
    """
    if name == "ideal":
        return ()
    own: tuple[Fit, ...] = ()
    if name != "shipped":
        try:
            own = load(Path(name)).fits
        except OSError as fault:
            raise ProfileError(f"profile {name}: cannot be read: {fault.strerror}") from None
        except UnicodeDecodeError:
            raise ProfileError(f"profile {name}: is not UTF-8 text") from None
    return own + tuple(fit for profile in shipped() for fit in profile.fits)
