"""Paths that settings name."""

import re
from pathlib import Path

__all__ = ["local"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def local(text: str, name: str) -> Path:
    """Returns the path of a file or folder, with a leading ~ as the home directory.

    Args:
        text: as it was typed.
        name: of the setting, for the message, such as "--workdir".

    Returns:
        The path, relative to the current directory if it was.

    Raises:
        ValueError: it is an address (gs://...), or the home directory is unknown.
    """
    if _SCHEME.match(text):
        raise ValueError(
            f"{name}={text} is an address, and files are read and written by path alone; mount "
            "the bucket or share (gcsfuse, s3fs, ...) and give the folder"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{name}={text}: the home directory is unknown; give the whole path"
        ) from error
