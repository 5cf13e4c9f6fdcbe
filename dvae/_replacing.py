"""Files that are either complete or as they were."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["replace_text", "replacing"]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a hidden file beside `path` to write, which takes its place when that went well.

    Args:
      path: of the file; its folder must be there.

    Raises:
      OSError: it cannot be replaced.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):  # in place of what went wrong
            part.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8, or leaves the file as it was.

    Raises:
      OSError: it cannot be written.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
