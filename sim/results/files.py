"""Files are written whole or not at all, like a letter that is posted when it is finished."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write every file, making folders as needed; all are on the disk before the first takes its place.

    Raises:
        OSError: no room, no right, or a folder in the way; what was there before is whole.
    """
    whole = {file.resolve(): content for file, content in contents.items()}  # a link stays one
    made = [folder for file in whole for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    drafts = {file: file.with_name(f".{file.name}.{os.getpid()}.part") for file in whole}
    try:
        for file, content in whole.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.exists() and not file.is_file():  # a pipe, a terminal, /dev/null
                file.write_bytes(content)
                del drafts[file]
            else:
                drafts[file].write_bytes(content)
        for file, draft in drafts.items():
            draft.replace(file)
    except OSError:
        for draft in drafts.values():
            with suppress(OSError):  # its folder may be no folder
                draft.unlink()
        for folder in sorted(set(made), key=lambda path: -len(path.parts)):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise
