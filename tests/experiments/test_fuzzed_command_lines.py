"""Command lines that hypothesis makes up: each gives a configuration, or ends in one line."""

import contextlib
import io
from unittest import mock

import hypothesis.strategies as st
import pytest
from command_line import fresh_flags
from hypothesis import HealthCheck, given, settings
from programs import TRAINING

from experiments.common import flags

VALUES = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["", "1e3", "0x10", "1_000", "True", "None", "--", "a\nb", "demo", "1" * 5000]),
)
# "help" prints the flags and ends well, so it is left out.
NAMES = st.one_of(
    st.sampled_from(["preset", "num_steps", "learning_rate", "workdir", "dataset", "seed", "lr"]),
    st.sampled_from(["batch_size", "num_seeds", "estimator", "discrete", "mesh", "coordinator"]),
    st.text("abcdefgh_-=", max_size=8),
)


@st.composite
def words(draw) -> str:
    """One argument: a flag with or without a value, in any of the usual spellings, or a word."""
    dashes, name, value = draw(st.sampled_from(["--", "-", "--no"])), draw(NAMES), draw(VALUES)
    return draw(st.sampled_from([f"{dashes}{name}={value}", f"{dashes}{name}", value, "--"]))


def parse(experiment: str, arguments: list[str]) -> tuple[object, int, str]:
    """What an experiment makes of its arguments: a configuration or None, exit code, stderr."""
    config_class, presets = TRAINING[experiment]
    values, told = fresh_flags(config_class, presets), io.StringIO()
    with (
        mock.patch.object(flags.absl_flags, "FLAGS", values),
        contextlib.redirect_stderr(told),
    ):
        try:
            rest = flags._parse_command_line([experiment, *arguments])
            with flags.setup():
                flags.refuse_words(rest)
                return flags.parse(config_class, presets), 0, told.getvalue()
        except SystemExit as stopped:
            return None, stopped.code, told.getvalue()


@pytest.mark.many_cases
@pytest.mark.parametrize("experiment", TRAINING)
def test_made_up_command_lines_end_in_one_line(experiment) -> None:
    @settings(
        max_examples=200,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(words(), max_size=4))
    def run(arguments):
        config, code, told = parse(experiment, arguments)
        if config is None:
            assert code == 2
            assert told.startswith("error: ")
            assert len(told.splitlines()) == 1, told
        else:
            assert not told

    run()
