"""What `--help` and `--helpshort` print: the program's manual, and its flags group by group."""

import dataclasses
import difflib
import os
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from dvae.data.sources import OWN
from experiments.common.flag_rules import Alternative

PRESET, HIDDEN = "preset", "other names"
GROUPS = (PRESET, "data", "model", "objective", "optimizer", "run", "devices")
FULL, SHORT = "--help", "--helpshort"
_WIDTH, _INDENT = 100, 26
_FEW_PRESETS = 10  # whose values fit into --help; of more, the names
_ASKING = {"help": FULL, "helpfull": FULL, "h": FULL, "?": FULL, "helpshort": SHORT}


def describe(field: dataclasses.Field[Any], alternatives: Sequence[Alternative]) -> str:
    """Returns a flag's text: what it is, its choices, default, and what it goes with."""
    rule, text = field.metadata, field.metadata["help"]
    if choices := [choice for choice in rule["choices"] if choice]:
        own = f"; or own images: {OWN}" if rule["source"] else ""
        text += f" One of {', '.join(choices)}{own}."
    if alternatives:
        wanted = [
            " and ".join(f"--{name}{condition.text}" for name, condition in conditions.items())
            for conditions in alternatives
        ]
        text += f" Goes with {'; or '.join(wanted)}."
    if rule["alias"]:
        text += f" Also --{rule['alias']}."
    return f"{text} Default: {field.default if field.default != '' else 'empty'}."


def describe_presets(presets: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the text of `--preset`."""
    if len(presets) > _FEW_PRESETS:
        return f"Named settings, which further flags override: {', '.join(presets)}."
    lines = ["Named settings, which further flags override."]
    for name, values in presets.items():
        settings = " ".join(f"{key}={value}" for key, value in values.items())
        lines.append(f"{name}: {settings or 'the defaults'}")
    return "\n".join(lines)


def list_presets(presets: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the presets' names, and below each what it sets."""
    settings = lambda values: as_flags(values) or "the defaults"
    indent = dict(initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(
        f"{name}\n{textwrap.fill(settings(values), _WIDTH, **indent)}"  # type: ignore[arg-type]
        for name, values in presets.items()
    )


def suggest(name: str, presets: Collection[str]) -> str:
    """Returns which presets an unknown name may mean: "one of demo, smoke"."""
    if len(presets) <= _FEW_PRESETS:
        return f"one of {', '.join(presets)}"
    alike = difflib.get_close_matches(name, presets, n=4, cutoff=0.4)
    near = f", such as {', '.join(alike)}" if alike else ""
    return f"one of the {len(presets)} presets{near}"


def as_flags(values: Mapping[str, Any]) -> str:
    """Writes settings as on a command line."""
    return " ".join(f"--{name}={value}" for name, value in values.items())


def asked(arguments: Sequence[str]) -> str:
    """Returns which help the command line asks for, `FULL` or `SHORT`; empty for none."""
    for word in arguments[1:]:
        if word == "--":
            break
        if word.startswith("-") and (found := _ASKING.get(word.lstrip("-"))):
            return found
    return ""


def show(values: absl_flags.FlagValues, *, short: bool) -> None:
    """Prints the help."""
    text = render(values, program_name(), sys.modules["__main__"].__doc__ or "", short=short)
    tell(text)


def program_name() -> str:
    """Returns the name of the module that runs, a package's without its `__main__`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name if spec is not None else os.path.basename(sys.argv[0])
    return name.removesuffix(".__main__")


def tell(text: str) -> None:
    """Prints an answer, or what a program has done; all of stdout is written here.

    That the reader closed the pipe, as `head` does, is no error, and the program goes on.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What follows goes nowhere; Python flushes standard output once more as it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def render(values: absl_flags.FlagValues, program: str, manual: str, *, short: bool) -> str:
    """Returns the help of a program's flags.

    Args:
      values: what `flags.define` has defined.
      program: the module's name.
      manual: its docstring.
      short: the flags' names alone.
    """
    by_group = values.flags_by_module_dict()
    groups = {group: by_group[group] for group in GROUPS if by_group.get(group)}
    if short:
        commands = [line for line in manual.splitlines() if line.startswith("    python -m ")]
        lines = [*(commands or [f"    python -m {program}"]), f"flags, which {FULL} explains:"]
        for group, flags in groups.items():
            names = " ".join(f"--{flag.name}" for flag in flags)
            head = "" if group == PRESET else f"{group}:"
            lines.append(textwrap.fill(f"{head:<11}{names}", _WIDTH, subsequent_indent=" " * 11))
        return "\n".join(lines)
    parts = [manual.strip() or f"python -m {program}"]
    for group, flags in groups.items():
        entries = "\n".join(_entry(flag) for flag in flags)
        parts.append(entries if group == PRESET else f"{group}:\n{entries}")
    return "\n\n".join(filter(None, parts))


def _entry(flag: absl_flags.Flag) -> str:
    """Lays out a flag's name and text in two columns."""
    text = "\n".join(
        textwrap.fill(
            line,
            _WIDTH,
            initial_indent=" " * _INDENT,
            subsequent_indent=" " * (_INDENT + (2 if i else 0)),
            break_on_hyphens=False,
        )
        for i, line in enumerate(flag.help.splitlines())
    )
    name = f"  --{flag.name}"
    return f"{name:<{_INDENT}}{text.lstrip()}" if len(name) < _INDENT else f"{name}\n{text}"
