"""What reads the words of flags, by the type of their default."""

from collections.abc import Mapping
from typing import Any

from absl import flags as absl_flags


class WholeParser(absl_flags.IntegerParser):
    """Reads a whole number, and says so where there is another."""

    def convert(self, argument: str | int) -> int:
        """Returns the number."""
        try:
            return super().convert(argument)
        except ValueError:
            raise ValueError("it must be a whole number") from None


PARSERS: Mapping[type, type[absl_flags.ArgumentParser[Any]]] = {
    bool: absl_flags.BooleanParser,
    int: WholeParser,
    float: absl_flags.FloatParser,
    str: absl_flags.ArgumentParser,
}
