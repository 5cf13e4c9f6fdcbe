"""Where a run's results go when no `--workdir` says so: one name a configuration."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from experiments.common import flags
from experiments.common.config import RunConfig

_MAX_SPELLED, _MAX_LENGTH = 2, 40  # fields, and characters of them all; beyond, a hash
_PLAIN = re.compile(r"[\w.,+-]*")


def default_workdir(
    program: str,
    config: RunConfig,
    words: Sequence[str],
    *,
    told: Collection[str],
    usual: Mapping[str, Any] | None = None,
) -> str:
    """Returns runs/PROGRAM-WORDS[-OTHERS]-SEEDS; other configurations have other names.

    OTHERS are the fields that neither the words tell nor the defaults: one or two of them are
    spelled out ("num_steps=500"), of more there are eight digits of a hash. A new field changes no
    name as long as it has its default.

    Args:
      program: the module's name.
      config: all settings.
      words: what tells kinds of runs apart, for readers.
      told: the fields whose values the words spell.
      usual: field -> the value that a default left open is settled to.
    """
    silent = {*told, *flags.free_fields(config), "seed", "num_seeds"}
    others = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in silent
        and getattr(config, field.name) not in (field.default, (usual or {}).get(field.name))
    }
    first, last = config.seed, config.seed + config.num_seeds - 1
    seeds = f"seed{first}" if first == last else f"seeds{first}-{last}"
    return "runs/" + "-".join(filter(None, (program, *words, _spell(others), seeds)))


def _spell(fields: Mapping[str, Any]) -> str:
    """Writes fields in a few characters that no other fields share."""
    text = "-".join(f"{name}={value}" for name, value in fields.items())
    plain = all(_PLAIN.fullmatch(str(value)) for value in fields.values())
    if plain and len(fields) <= _MAX_SPELLED and len(text) <= _MAX_LENGTH:
        return text
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]
