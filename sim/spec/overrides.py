"""Changes from the command line: ``--set cluster.pools.0.nodes=64`` on a parsed scenario document."""

from __future__ import annotations

import tomllib
from typing import Any

from sim.spec.faults import Fault

_NOTHING = object()


def override(document: dict[str, Any], item: str) -> Fault | None:
    """Apply one ``path=value`` to the document; the value is TOML, or text when it is not.

    ``path=`` with nothing after it leaves the key out again, so that its default holds.
    """
    path, separator, text = item.partition("=")
    if not separator or not path.strip():
        return Fault("--set", item, None, "expected PATH=VALUE, for example cluster.pools.0.nodes=64")
    leave_out = not text.strip()
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    parts = path.strip().split(".")
    here: Any = document
    for depth, part in enumerate(parts[:-1]):
        step = _step(here, part)
        if step is _NOTHING:
            return Fault("--set", ".".join(parts[: depth + 1]), text, "there is nothing under this path")
        if isinstance(step, str):  # a catalogue name on the way: change the entry it names
            step = {"base": step}
            here[int(part) if isinstance(here, list) else part] = step
        here = step
    if isinstance(here, list):
        if not parts[-1].isdigit() or int(parts[-1]) >= len(here):
            return Fault("--set", path, text, f"expected a number from 0 to {len(here) - 1} as the last part")
        if leave_out:
            del here[int(parts[-1])]
        else:
            here[int(parts[-1])] = value
    elif isinstance(here, dict) and leave_out:
        here.pop(parts[-1], None)
    elif isinstance(here, dict):
        here[parts[-1]] = value
    else:
        return Fault("--set", path, text, "there is nothing under this path")
    return None


def value_text(value: Any) -> str:
    """A value as :func:`override` takes it; nothing for None and for empty lists, which leaves the key out."""
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return ""
    return value if isinstance(value, str) else _literal(value)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return repr(value)  # Python writes plain texts and numbers as TOML does


def _step(here: Any, part: str) -> Any:
    if isinstance(here, dict):
        return here.setdefault(part, {})
    if isinstance(here, list) and part.isdigit() and int(part) < len(here):
        return here[int(part)]
    return _NOTHING
