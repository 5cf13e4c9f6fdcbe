"""Flags, presets and errors of the experiment binaries.

A frozen dataclass is the only source of an experiment's defaults. `define` makes one absl flag a
field, `parse` overlays the preset and then the flags that were given on the defaults. Flags are
defined only when a binary runs, so that importing an experiment has no side effect.
"""

import contextlib
import dataclasses
import io
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
from absl import app, logging
from absl import flags as absl_flags

from dvae.data import DataUnavailableError
from dvae.train import distributed, paths, signals
from dvae.train.checkpoint import CheckpointError
from dvae.train.lock import LockedError
from dvae.train.loop import NonFiniteError, StoppedError
from experiments import begin

Config = TypeVar("Config")
Presets = Mapping[str, Mapping[str, Any]]
MAX_INT = 2**31 - 1  # of what a device counts in int32
MAX_SEED = 2**32 - 1  # jax.random.key drops higher bits
_FEW_PRESETS = 10  # whose values fit into --help; of more, the names


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    minimum: float | None = None,
    above: float | None = None,
    maximum: int = MAX_INT,
    identity: bool = True,
    path: bool = False,
) -> Any:
    """Declares a field: its default, its help text and what is checked.

    Args:
      default: also fixes the type: str, int or float.
      help: one line for `--help`.
      choices: the allowed strings.
      minimum: the smallest allowed number.
      above: the number that the value must exceed.
      maximum: the largest allowed integer; devices compute in int32.
      identity: False for a field that may change when a run is resumed.
      path: whether the value names a file or folder, with a leading ~ as the home directory.
    """
    metadata = {"help": help, "choices": choices, "minimum": minimum, "above": above}
    metadata |= {"maximum": maximum, "identity": identity, "path": path}
    return dataclasses.field(default=default, metadata=metadata)


def changed(base: type, name: str, default: Any) -> Any:
    """Redeclares the field `name` of a base configuration with another default."""
    field = next(field for field in dataclasses.fields(base) if field.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


def check_fields(config: Any) -> None:
    """Raises ValueError for a field outside what its `option` allows; for `__post_init__`.

    Paths are expanded.
    """
    for field in dataclasses.fields(config):
        value, rule = getattr(config, field.name), field.metadata
        if rule["path"] and value:
            object.__setattr__(config, field.name, str(paths.local(value, f"--{field.name}")))
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{field.name}={value} must be finite")
        if rule["choices"] and value not in rule["choices"]:
            raise ValueError(f"--{field.name}={value} must be one of {', '.join(rule['choices'])}")
        if rule["minimum"] is not None and not value >= rule["minimum"]:
            raise ValueError(f"--{field.name}={value} must be at least {rule['minimum']}")
        if rule["above"] is not None and not value > rule["above"]:
            raise ValueError(f"--{field.name}={value} must be greater than {rule['above']}")
        if type(field.default) is int and value > rule["maximum"]:
            raise ValueError(f"--{field.name}={value} must be at most {rule['maximum']}")


def free_fields(config: Any) -> set[str]:
    """Returns the names of the fields that may change when a run is resumed."""
    return {f.name for f in dataclasses.fields(config) if not f.metadata["identity"]}


def define(config_class: type, presets: Presets | None = None) -> None:
    """Defines one flag for every field of the dataclass, and `--preset` if there are presets."""
    parsers = {
        int: absl_flags.IntegerParser,
        float: absl_flags.FloatParser,
        str: absl_flags.ArgumentParser,
    }

    def define_one(name: str, parser: absl_flags.ArgumentParser, text: str) -> None:
        # The main module's name, so that --help lists the flags that are defined here for it.
        absl_flags.DEFINE(parser, name, None, text, module_name=sys.argv[0])

    for field in dataclasses.fields(config_class):
        text = f"{field.metadata['help']} (default: {field.default!r})"
        if field.metadata["choices"]:
            text += f" One of: {', '.join(field.metadata['choices'])}."
        define_one(field.name, parsers[type(field.default)](), text)
    if presets is None:
        return
    settings = lambda values: f": {' '.join(f'{k}={v}' for k, v in values.items())}"
    short = len(presets) <= _FEW_PRESETS
    listed = ("; " if short else ", ").join(
        name + (settings(values) if short else "") for name, values in presets.items()
    )
    text = f"Named settings, which further flags override. {listed}"
    define_one("preset", absl_flags.ArgumentParser(), text)


def refuse_words(arguments: Sequence[str]) -> None:
    """Raises ValueError for words on the command line, after the program's name, but flags."""
    if len(arguments) > 1:
        raise ValueError(f"unexpected arguments: {' '.join(arguments[1:])}")


def parse(config_class: type[Config], presets: Presets | None = None) -> Config:
    """Returns the configuration of the parsed flags.

    Raises:
      ValueError: an unknown preset, or a value that the configuration refuses.
    """
    values = absl_flags.FLAGS
    preset = values["preset"].value if presets is not None else None
    if presets is not None and preset is not None and preset not in presets:
        raise ValueError(f"--preset={preset} must be one of {', '.join(presets)}")
    chosen = presets[preset] if presets is not None and preset is not None else {}
    names = [field.name for field in dataclasses.fields(config_class)]  # type: ignore[arg-type]
    given = {name: values[name].value for name in names if values[name].value is not None}
    return config_class(**{**chosen, **given})


@contextlib.contextmanager
def setup() -> Iterator[None]:
    """Ends the program in one line for a mistake found before anything is compiled."""
    try:
        yield
    except (ValueError, DataUnavailableError) as error:
        _print_error(error)
        distributed.leave(2)


def _print_error(error: Exception) -> None:
    """Says what is wrong in one line, whatever is in the words that it quotes."""
    _say(f"error: {' '.join(str(error).split())}")


def _say(text: str) -> None:
    """Prints a line; that the terminal was closed is no error."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _parse_command_line(arguments: list[str]) -> list[str]:
    """Parses absl flags; a mistake ends in one line."""
    try:
        return absl_flags.FLAGS(arguments)
    except absl_flags.Error as error:
        _print_error(error)
        sys.exit(2)


def run(main: Callable[[list[str]], None]) -> None:
    """Runs an experiment under absl; a stopped or diverged run ends in one line."""

    def guarded(arguments: list[str]) -> None:
        try:
            main(arguments)
        except StoppedError as error:
            _say(str(error))
            sys.exit(signals.STATUS)
        except NonFiniteError as error:
            _print_error(error)
            sys.exit(1)
        except (CheckpointError, LockedError) as error:
            _print_error(error)
            distributed.leave(1)
        except distributed.PeerError as error:
            _print_error(error)
            distributed.leave(3)
        except KeyboardInterrupt:
            _say("interrupted")
            distributed.leave(signals.STATUS)
        except Exception:
            if not jax.distributed.is_initialized():
                raise
            # Of several processes: the others would wait for this one without an end.
            traceback.print_exc()
            distributed.leave(1)

    begin.imported()
    # Orbax and TFDS report every file, and errors of threads beside the one that we raise.
    logging.set_verbosity(logging.FATAL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold what ASCII does not
            stream.reconfigure(errors="backslashreplace")
    with signals.end_at_once():
        app.run(guarded, flags_parser=_parse_command_line)
