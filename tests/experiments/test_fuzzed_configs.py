"""Settings that hypothesis makes up: each is taken, or refused in words that name a flag."""

import dataclasses
import re

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from programs import EXPERIMENTS

INTEGERS = st.sampled_from([-(2**40), -1, 0, 1, 2, 3, 7, 8, 100, 784, 10**6, 2**40])
FLOATS = st.sampled_from(
    [float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 1e-300, 1e-7, 0.5, 1.0, 30.0, 1e300]
)
TEXTS = st.sampled_from(["", "0", "10,3", "10,,3", "auto", "localhost:1", "ünïcode", "a" * 500])


def values_of(field: dataclasses.Field) -> st.SearchStrategy:
    """Values of the field's type, allowed and not."""
    if field.metadata["choices"]:
        return st.sampled_from([*field.metadata["choices"], "nonsense"])
    return {bool: st.booleans(), int: INTEGERS, float: FLOATS, str: TEXTS}[type(field.default)]


def overrides(config_class) -> st.SearchStrategy:
    """Up to six fields with values."""
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    names = st.lists(st.sampled_from(sorted(fields)), max_size=6, unique=True)
    return names.flatmap(
        lambda chosen: st.fixed_dictionaries({name: values_of(fields[name]) for name in chosen})
    )


@pytest.mark.many_cases
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_made_up_settings_are_taken_or_refused_by_name(experiment) -> None:
    config_class, presets = EXPERIMENTS[experiment]
    names = {field.name for field in dataclasses.fields(config_class)}

    @settings(
        max_examples=300,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from([{}, *presets.values()]), overrides(config_class))
    def run(preset, changes):
        try:
            config = config_class(**{**preset, **changes})
            if hasattr(config, "loop"):
                config.loop()
        except ValueError as error:
            message = str(error)
            assert "\n" not in message
            named = set(re.findall(r"\w+", message)) & names
            assert named, f"names no flag: {message}"
            assert named & {*changes, *preset}, f"names none that was given: {message}"

    run()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_presets_are_taken(experiment) -> None:
    config_class, presets = EXPERIMENTS[experiment]
    for name, preset in presets.items():
        assert config_class(**preset), name
