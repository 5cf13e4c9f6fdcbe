"""Flags that only some values of other flags read, and would do nothing beside the others.

    READ_WITH: Rules = {
        "temperature": [{"estimator": one_of("gs_soft", "gs_hard")}],
        "beta": [{"prior": one_of("rbm")}, {"prior": one_of("directed"), "estimator": one_of(...)}],
    }

A field is read where all conditions of one of its alternatives hold, and a field without rules
everywhere. `flags.parse` refuses what was given on the command line and is not read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Condition(NamedTuple):
    """What another flag must be."""

    holds: Callable[[Any], bool]
    text: str  # behind "--FLAG", as in "=gs_soft or gs_hard"


Alternative = Mapping[str, Condition]
Rules = Mapping[str, Sequence[Alternative]]


def one_of(*values: str) -> Condition:
    """Returns the condition that a flag has one of these values; "" stands for its default."""
    return Condition(values.__contains__, "=" + _either([value for value in values if value]))


def with_one_of(*values: str) -> Condition:
    """Returns the condition that a list with commas holds one of these values, or is "all"."""
    wanted = {*values, "all"}
    return Condition(lambda text: bool(wanted & set(text.split(","))), "=" + _either(values))


POSITIVE = Condition(lambda value: value > 0, " above 0")
SEVERAL = Condition(lambda value: value > 1, " above 1")
NOT_EMPTY = Condition(bool, " not empty")
TRUE = Condition(bool, "=true")
VALIDATED: Sequence[Alternative] = [{"eval_interval": POSITIVE}]


def idle(rules: Rules, values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the fields that are not read, and what each of them goes with.

    Args:
      rules: field -> alternatives.
      values: every field of the configuration.

    Returns:
      field -> "--estimator=vimco, got --estimator=vq".
    """
    idle_fields = {}
    for field, alternatives in rules.items():
        unmet = [
            {name: c for name, c in alternative.items() if not c.holds(values[name])}
            for alternative in alternatives
        ]
        if all(unmet):
            wanted = [
                " and ".join(f"--{name}{condition.text}" for name, condition in conditions.items())
                for conditions in unmet
            ]
            names = dict.fromkeys(name for conditions in unmet for name in conditions)
            told = ", ".join(f"--{name}={values[name]}" for name in names)
            idle_fields[field] = f"{', or '.join(dict.fromkeys(wanted))}, got {told}"
    return idle_fields


def _either(values: Sequence[str]) -> str:
    """Lists values: "a, b or c"."""
    *first, last = values
    return f"{', '.join(first)} or {last}" if first else last
