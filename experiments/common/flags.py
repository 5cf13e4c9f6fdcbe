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

from dvae import data
from dvae._extras import MissingExtraError
from dvae.data import DataUnavailableError
from dvae.train import distributed, paths, signals
from dvae.train.checkpoint import CheckpointError
from dvae.train.lock import LockedError
from dvae.train.loop import NonFiniteError, StoppedError
from experiments.common import begin, flag_help, flag_rules
from experiments.common.flag_parsers import PARSERS

Config = TypeVar("Config")
Presets = Mapping[str, Mapping[str, Any]]
MAX_INT = 2**31 - 1  # of what a device counts in int32
_LIST_PRESETS, _SHOW_PRESET = "list_presets", "show_preset"
MAX_SEED = 2**32 - 1  # jax.random.key drops higher bits


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
    group: str = "run",
    alias: str = "",
    source: bool = False,
    former: Any = None,
    flag: bool = True,
) -> Any:
    """Declares a field: its default, its help text and what is checked.

    Args:
      default: also fixes the type: str, int, float or bool.
      help: a sentence for `--help`, which begins with a noun and names units.
      choices: the allowed strings.
      minimum: the smallest allowed number.
      above: the number that the value must exceed.
      maximum: the largest allowed integer; devices compute in int32.
      identity: False for a field that may change when a run is resumed.
      path: whether the value names a file or folder, with a leading ~ as the home directory.
      group: where `--help` lists it, one of `flag_help.GROUPS`.
      alias: another name of the flag.
      source: whether the value names a data set: one of the choices, or own images.
      former: what runs had that are older than the field, where they may go on; None: they may not.
      flag: False for what no command line says: the program fills it in.
    """
    metadata = {"help": help, "choices": choices, "minimum": minimum, "above": above}
    metadata |= {"maximum": maximum, "identity": identity, "path": path}
    metadata |= {"group": group, "alias": alias, "source": source, "former": former}
    metadata |= {"flag": flag}
    return dataclasses.field(default=default, metadata=metadata)


def changed(base: type, name: str, default: Any) -> Any:
    """Redeclares the field `name` of a base configuration with another default."""
    field = next(field for field in dataclasses.fields(base) if field.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


def unflagged(base: type, name: str) -> Any:
    """Redeclares the field `name` of a base configuration as one that is no flag."""
    field = next(field for field in dataclasses.fields(base) if field.name == name)
    return dataclasses.field(default=field.default, metadata={**field.metadata, "flag": False})


def flag_fields(config_class: Any) -> list[dataclasses.Field[Any]]:
    """Returns the fields of a configuration that are flags."""
    return [field for field in dataclasses.fields(config_class) if field.metadata["flag"]]


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
        if rule["source"]:
            try:
                object.__setattr__(config, field.name, data.settled(value))
            except ValueError as error:
                raise ValueError(f"--{field.name}={value}: {error}") from error
        elif rule["choices"] and value not in rule["choices"]:
            choices = ", ".join(choice or "empty" for choice in rule["choices"])
            raise ValueError(f"--{field.name}={value} must be one of {choices}")
        if rule["minimum"] is not None and not value >= rule["minimum"]:
            raise ValueError(f"--{field.name}={value} must be at least {rule['minimum']}")
        if rule["above"] is not None and not value > rule["above"]:
            raise ValueError(f"--{field.name}={value} must be greater than {rule['above']}")
        if type(field.default) is int and value > rule["maximum"]:
            raise ValueError(f"--{field.name}={value} must be at most {rule['maximum']}")


def settle(config: Any, **defaults: str) -> None:
    """Fills in what was left open, for `__post_init__`: records and resumed runs name it."""
    for name, value in defaults.items():
        if not getattr(config, name):
            object.__setattr__(config, name, value)


def free_fields(config: Any) -> set[str]:
    """Returns the names of the fields that may change when a run is resumed."""
    return {f.name for f in dataclasses.fields(config) if not f.metadata["identity"]}


def former_values(config: Any) -> dict[str, Any]:
    """Returns what runs had that are older than a field, of the fields that they may lack."""
    formers = {f.name: f.metadata["former"] for f in dataclasses.fields(config)}
    return {name: value for name, value in formers.items() if value is not None}


def define(config_class: type, presets: Presets | None = None) -> None:
    """Defines one flag for every field of the dataclass, and `--preset` if there are presets."""

    def define_one(name: str, parser: absl_flags.ArgumentParser, text: str, group: str) -> None:
        # absl keeps flags by module; under the names of groups `flag_help` finds them.
        if isinstance(parser, absl_flags.BooleanParser):
            absl_flags.DEFINE_bool(name, None, text, module_name=group)
        else:
            absl_flags.DEFINE(parser, name, None, text, module_name=group)

    for field in flag_fields(config_class):
        parser = PARSERS[type(field.default)]()
        text = flag_help.describe(field, rules_of(config_class).get(field.name, ()))
        define_one(field.name, parser, text, field.metadata["group"])
        if alias := field.metadata["alias"]:
            absl_flags.DEFINE_alias(alias, field.name, module_name=flag_help.HIDDEN)
    if presets is not None:
        text = flag_help.describe_presets(presets)
        define_one("preset", absl_flags.ArgumentParser(), text, flag_help.PRESET)
        shown = "Name of a preset: prints the command that does the same without it, and ends."
        define_one(_SHOW_PRESET, absl_flags.ArgumentParser(), shown, flag_help.PRESET)
        listed = "List of the presets with what each sets: prints it and ends."
        absl_flags.DEFINE_bool(_LIST_PRESETS, None, listed, module_name=flag_help.PRESET)


def refuse_words(arguments: Sequence[str]) -> None:
    """Raises ValueError for words on the command line, after the program's name, but flags."""
    if len(arguments) > 1:
        raise ValueError(f"unexpected arguments: {' '.join(arguments[1:])}")


def parse(config_class: type[Config], presets: Presets | None = None) -> Config:
    """Returns the configuration of the parsed flags.

    What a preset sets and the flags beside it make idle, as another estimator does, is left out.

    Raises:
      ValueError: an unknown preset, a value that the configuration refuses, or a flag that does
        nothing beside the others.
    """
    values = absl_flags.FLAGS
    chosen = {} if presets is None else _choose(config_class, presets)
    fields = flag_fields(config_class)
    typed = {f.name: values[f.name].value for f in fields if values[f.name].value is not None}
    config = config_class(**beside(config_class, chosen, typed))
    settled = {field.name: getattr(config, field.name) for field in fields}
    for name, reason in flag_rules.idle(rules_of(config_class), settled).items():
        if typed.get(name, "") != "":
            raise ValueError(f"--{name}={typed[name]} goes with {reason}")
    return config


def command(program: str, config_class: type, settings: Mapping[str, Any]) -> str:
    """Returns the command of these settings, without those that the others make idle."""
    config = config_class(**settings)
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    idle = flag_rules.idle(rules_of(config_class), values)
    read = {name: value for name, value in settings.items() if name not in idle}
    return f"python -m {program} {flag_help.as_flags(read)}".rstrip()


def beside(
    config_class: type, preset: Mapping[str, Any], flags: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a preset's settings together with flags, without those that the flags make idle."""
    rules = rules_of(config_class)
    defaults = {field.name: field.default for field in dataclasses.fields(config_class)}
    alone = flag_rules.idle(rules, {**defaults, **preset})
    now = flag_rules.idle(rules, {**defaults, **preset, **flags})
    settings = {k: v for k, v in preset.items() if k in flags or k in alone or k not in now}
    return {**settings, **flags}


def _choose(config_class: type, presets: Presets) -> Mapping[str, Any]:
    """Returns what `--preset` sets, or answers a question about presets and ends the program."""
    values = absl_flags.FLAGS
    if values[_LIST_PRESETS].value:
        flag_help.tell(flag_help.list_presets(presets))
        sys.exit(0)
    for flag in (_SHOW_PRESET, "preset"):
        name = values[flag].value
        if name is not None and name not in presets:
            raise ValueError(
                f"--{flag}={name} must be {flag_help.suggest(name, presets)}; --{_LIST_PRESETS} "
                "shows what each sets"
            )
        if name is not None and flag == _SHOW_PRESET:
            flag_help.tell(command(flag_help.program_name(), config_class, presets[name]))
            sys.exit(0)
    return presets[name] if name is not None else {}


def refuse(names: Sequence[str], reason: str) -> None:
    """Raises ValueError for any of these flags on the command line."""
    for name in names:
        if (value := absl_flags.FLAGS[name].value) is not None:
            raise ValueError(f"--{name}={value} {reason}")


def rules_of(config_class: type) -> flag_rules.Rules:
    """Returns which fields are read beside which values, of a configuration that says so."""
    return getattr(config_class, "READ_WITH", {})


@contextlib.contextmanager
def setup() -> Iterator[None]:
    """Ends the program in one line for a mistake found before anything is compiled."""
    try:
        yield
    except (ValueError, DataUnavailableError, MissingExtraError) as error:
        _print_error(error)
        distributed.leave(2)


def _print_error(error: Exception | str) -> None:
    """Prints what is wrong in one line, whatever is in the words that it quotes."""
    _say(f"error: {' '.join(str(error).split())}")


def _say(text: str) -> None:
    """Prints a line; that the terminal was closed is no error."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _parse_command_line(arguments: list[str]) -> list[str]:
    """Parses absl flags; a mistake ends in one line, a question for help in an answer."""
    if asked := flag_help.asked(arguments):
        flag_help.show(absl_flags.FLAGS, short=asked == flag_help.SHORT)
        sys.exit(0)
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
        except (DataUnavailableError, NonFiniteError) as error:
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
        except Exception as error:
            if trouble := paths.trouble(error):
                _print_error(trouble)
                distributed.leave(1)
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
