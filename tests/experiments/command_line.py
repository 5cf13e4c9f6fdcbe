"""How the tests give a training binary its command line without leaving the process."""

import contextlib
import functools
from unittest import mock

import pytest
from absl import flags as absl_flags

from experiments.common import flags
from experiments.common import run as runner

DEFINERS = ("DEFINE", "DEFINE_alias", "DEFINE_bool")


def fresh_flags(config_class, presets) -> absl_flags.FlagValues:
    """Flags of a configuration that nothing else has defined."""
    values = absl_flags.FlagValues()
    with contextlib.ExitStack() as stack:
        for name in DEFINERS:
            define = functools.partial(getattr(absl_flags, name), flag_values=values)
            stack.enter_context(mock.patch.object(flags.absl_flags, name, define))
        flags.define(config_class, presets)
    return values


def error_of(monkeypatch, capsys, program, config_class, presets, arguments) -> str:
    """Runs a mistaken command; returns its last line on stderr. Nothing may be compiled first."""
    values = absl_flags.FlagValues()
    for name in DEFINERS:
        define = functools.partial(getattr(absl_flags, name), flag_values=values)
        monkeypatch.setattr(flags.absl_flags, name, define)
    monkeypatch.setattr(flags.absl_flags, "FLAGS", values)
    monkeypatch.setattr(program, "make_task", lambda *_: pytest.fail("went on"))
    # absl would parse sys.argv and exit; the rest of `start` is what is tested.
    monkeypatch.setattr(flags, "run", lambda main: main(values([program.__name__, *arguments])))
    with pytest.raises(SystemExit) as stopped:
        runner.start(config_class, presets, program.run)
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error
