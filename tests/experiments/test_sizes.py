"""Networks of `binary_vae` that take long to compile are announced, or refused."""

import pytest

from dvae import data
from dvae.train import sharding
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import names, sizes
from experiments.binary_vae.config import Config
from experiments.binary_vae.presets import PRESETS
from experiments.gradient_variance import config as gradient_variance_config

LINEAR = {"structure": names.LINEAR}


def most(fits) -> int:
    """The largest number that is accepted, where all below are too."""
    number = 1
    while fits(number + 1):
        number += 1
    return number


def accepts(settings, flag, number) -> bool:
    try:
        Config(**settings, **{flag: number})
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("settings", "flag"),
    [({}, "num_groups"), (LINEAR, "num_groups"), ({}, "hidden_layers")],
    ids=["groups", "affine-groups", "layers"],
)
def test_the_limit_is_where_the_estimate_passes_it(settings, flag) -> None:
    limit = most(lambda number: accepts(settings, flag, number))
    assert 32 < limit < 2_000
    sizes_of = lambda number: {"num_groups": 1, "hidden_layers": 2, flag: number}

    def seconds(number):
        both = sizes_of(number)
        layers = 0 if settings == LINEAR else both["hidden_layers"]
        return sizes.compile_seconds(both["num_groups"], layers)

    assert seconds(limit) <= sizes.MAX_COMPILE_SECONDS < seconds(limit + 1)
    for number in (limit + 1, 10**6, 2**31 - 1):
        with pytest.raises(ValueError, match=f"--{flag}={number}") as refusal:
            Config(**settings, **{flag: number})
        message = str(refusal.value)
        assert "may take at most 10 minutes" in message
        assert ("more --num_latents each" in message) == (flag == "num_groups")
        assert ("--hidden_layers=" in message) == (settings != LINEAR)
        assert ("--num_groups=" in message) == (flag == "num_groups")


def test_a_program_on_this_model_names_the_flag_that_it_has() -> None:
    with pytest.raises(ValueError, match="--hidden_layers=100000") as refusal:
        gradient_variance_config.Config(hidden_layers=100_000)
    assert "num_groups" not in str(refusal.value)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_far_below_the_limit(name) -> None:
    config = Config(**PRESETS[name])
    seconds = sizes.compile_seconds(config.num_groups, len(config.hidden))
    assert seconds < sizes.MAX_COMPILE_SECONDS / 10


@pytest.mark.parametrize(
    ("settings", "notice"),
    [
        ({}, ""),
        ({"num_groups": 4}, ""),
        ({"num_groups": 16}, "compiling 16 groups takes about 1 minute\n"),
        ({"num_groups": 40}, "compiling 40 groups takes about 3 minutes\n"),
        ({"hidden_layers": 200}, "compiling networks of 200 layers takes about 2 minutes\n"),
    ],
    ids=lambda x: "-".join(f"{k}-{v}" for k, v in x.items()) if isinstance(x, dict) else "",
)
def test_a_long_compilation_is_announced_in_one_line(capsys, settings, notice) -> None:
    config = Config(**{**PRESETS["smoke"], **settings})
    binary_vae.make_task(config, data.load("digits"), sharding.make_mesh(1))
    assert capsys.readouterr().err == notice
