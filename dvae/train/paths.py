"""Paths that settings name, and what is wrong where files cannot be written."""

import errno
import re
from pathlib import Path

__all__ = ["local", "trouble"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_MAKE_ROOM = "make room on the disk and start the same command again"
_ALLOW = "allow this user to use it, or choose another place"
_REMEDIES = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EACCES: _ALLOW,
    errno.EROFS: _ALLOW,
}


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


def trouble(error: Exception) -> str | None:
    """Returns what is wrong with a disk, and the remedy.

    Args:
      error: of reading or writing a file.

    Returns:
      A line for a disk that is full, or a place that is not this user's; None for other errors,
      which may be mistakes of the program.
    """
    if not isinstance(error, OSError) or not (remedy := _REMEDIES.get(error.errno or 0)):
        return None
    place = f": {error.filename}" if error.filename else ""
    return f"{error.strerror}{place}; {remedy}"
