"""What the tools that serve all training programs know of one."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.common.config import RunConfig


class Program(NamedTuple):
    """A training program: `PROGRAM` of the room `program` in its package."""

    name: str  # of its package in `experiments`
    config_class: type[RunConfig]
    presets: Mapping[str, Mapping[str, Any]]
    records: tuple[str, ...]  # files of its results, below docs/results
    metric: str  # of a summary's test numbers, which stands beside a preset
    unit: str  # of that
    # Settings that a step's time depends on, the most telling ones first, and which of them have to
    # be equal for the time of one run to tell that of another.
    costs: tuple[str, ...]
    sizes: tuple[str, ...]
    # What runs did that are older than a field, where that is not the field's default.
    before: Mapping[str, Any] = {}
