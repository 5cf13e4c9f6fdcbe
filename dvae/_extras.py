"""What says which extra brings a package that is not installed.

The library needs JAX and NumPy; `models` and `train`, the data sets of `data` and the figures of
`analysis` need packages that extras of the distribution bring (`pyproject.toml`).
"""

import contextlib
import importlib.util
from collections.abc import Iterator

__all__ = ["MissingExtraError", "needed", "require"]


class MissingExtraError(ModuleNotFoundError):
    """A package is not installed; the message names the extra that brings it."""

    def __init__(self, user: str, package: str, extra: str) -> None:
        remedy = f"pip install '.[{extra}]' in a checkout"
        super().__init__(f"{user} needs {package}: {remedy}", name=package)


@contextlib.contextmanager
def needed(user: str, extra: str) -> Iterator[None]:
    """Names the extra if a package is missing that is imported in this context.

    Args:
      user: what needs the packages, as the message names it: a module, or a word for a file.
      extra: the extra that brings them.

    Raises:
      MissingExtraError: a package of another project is missing.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "dvae"):
            raise
        raise MissingExtraError(user, package, extra) from None


def require(user: str, extra: str, *packages: str) -> None:
    """Checks that packages are installed, without loading them.

    Args:
      user: what needs the packages, as the message names it.
      extra: the extra that brings them.
      *packages: names as they are imported, without dots.

    Raises:
      MissingExtraError: one of them is missing.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(user, package, extra)
