"""Configurations from flags and presets, and their errors."""

import dataclasses
import functools

import jax
import pytest
from absl import flags as absl_flags

from experiments import (
    binary_config,
    compare_samplers,
    dvaepp_config,
    flags,
    gradient_variance_config,
    joint_config,
    vq_compress,
)
from experiments.vq_config import PRESETS, Config

CONFIGS = [
    Config,
    binary_config.Config,
    joint_config.Config,
    dvaepp_config.Config,
    gradient_variance_config.Config,
    compare_samplers.Config,
    vq_compress.Config,
]


@pytest.fixture(name="parse")
def make_parse(monkeypatch):
    """Parses a command line with a fresh set of flags."""

    def parse(*arguments):
        values = absl_flags.FlagValues()
        bound = functools.partial(absl_flags.DEFINE, flag_values=values)
        monkeypatch.setattr(flags.absl_flags, "DEFINE", bound)
        monkeypatch.setattr(flags.absl_flags, "FLAGS", values)
        flags.define(Config, PRESETS)
        values(["cifar_vq", *arguments])
        monkeypatch.undo()
        monkeypatch.setattr(flags.absl_flags, "FLAGS", values)
        return flags.parse(Config, PRESETS)

    return parse


def test_defaults_presets_and_flags_in_this_order(parse) -> None:
    assert parse() == Config()
    preset = parse("--preset=small")
    assert preset == Config(**PRESETS["small"])
    assert preset.features == 32
    given = parse("--preset=small", "--features=8", "--estimator=vq_ema", "--learning_rate=0.01")
    assert given == dataclasses.replace(preset, features=8, estimator="vq_ema", learning_rate=0.01)


def test_a_flag_may_restore_a_default_over_a_preset(parse) -> None:
    assert parse("--preset=small", "--crop=0").crop == 0


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name) -> None:
    config = Config(**PRESETS[name])
    config.loop()


def test_paper_preset_is_the_paper() -> None:
    config = Config(**PRESETS["paper"])
    assert (config.codebook_size, config.num_latents, config.features) == (512, 8, 256)
    assert (config.batch_size, config.learning_rate, config.temperature) == (64, 5e-4, 0.5)
    assert (config.num_samples, config.crop, config.dtype) == (4, 0, "bfloat16")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("estimator", "gumbel", "--estimator=gumbel must be one of gs_soft"),
        ("dataset", "imagenet", "--dataset=imagenet must be one of cifar10, patches"),
        ("temperature", 0.0, "--temperature=0.0 must be greater than 0"),
        ("temperature", float("nan"), "--temperature=nan must be finite"),
        ("codebook_size", 1, "--codebook_size=1 must be at least 2"),
        ("num_latents", 0, "--num_latents=0 must be at least 1"),
        ("batch_size", -4, "--batch_size=-4 must be at least 1"),
        ("crop", 18, "--crop=18 must be a multiple of 4"),
        ("crop", 36, "up to 32"),
        ("num_test_images", 1, "has no standard error"),
        ("ema_decay", 1.0, "must be below 1"),
        ("dtype", "float16", "--dtype=float16 must be one of float32, bfloat16"),
    ],
)
def test_bad_values(field, value, message) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**{field: value})


@pytest.mark.parametrize("config_class", CONFIGS, ids=lambda c: c.__module__)
def test_integers_that_a_device_cannot_count_to_are_refused_by_name(config_class) -> None:
    fields = [f for f in dataclasses.fields(config_class) if type(f.default) is int]
    assert any(field.name == "seed" for field in fields)
    for field in fields:
        for value in (2**32, 2**63, 3_000_000_000 + 2**31):
            with pytest.raises(ValueError, match=f"--{field.name}={value} must be at most"):
                config_class(**{field.name: value})


def test_every_seed_of_a_run_is_another_one() -> None:
    highest = flags.MAX_SEED
    assert Config(seed=highest).seed == highest
    assert Config(seed=highest - 2, num_seeds=3).num_seeds == 3
    with pytest.raises(ValueError, match=f"--seed={highest - 1} and --num_seeds=3: the last seed"):
        Config(seed=highest - 1, num_seeds=3)
    data = [jax.random.key_data(jax.random.key(s)).tolist() for s in (0, 2**31, highest)]
    assert data == [[0, 0], [0, 2**31], [0, highest]]
    assert jax.random.key_data(jax.random.key(highest + 1)).tolist() == data[0]


def test_numbers_in_lists_are_limited_too() -> None:
    with pytest.raises(ValueError, match=r"--discrete=10,4294967296 must list fewer than"):
        joint_config.Config(discrete="10,4294967296")
    for sweeps in ("10,4294967290", "9" * 5_000 + "0"):
        with pytest.raises(ValueError, match=f"--sweeps={sweeps[:20]}"):
            compare_samplers.Config(sweeps=sweeps)


def test_a_mistyped_number_of_bits_is_refused_without_counting_their_states() -> None:
    with pytest.raises(ValueError, match=r"--estimator=exact .*--num_latents=2147483647"):
        binary_config.Config(estimator="exact", num_latents=2**31 - 1)
    assert binary_config.Config(num_latents=2**31 - 1).num_latents == 2**31 - 1


def test_vimco_needs_two_samples() -> None:
    with pytest.raises(ValueError, match=r"at least 2 for vimco .*, got 1"):
        Config(estimator="vimco", num_samples=1)
    assert Config(estimator="gs_soft", num_samples=1).num_samples == 1


def test_unknown_preset(parse) -> None:
    with pytest.raises(ValueError, match="--preset=huge must be one of paper, small, demo, smoke"):
        parse("--preset=huge")


def test_only_where_things_are_may_change() -> None:
    places = {
        "workdir",
        "nonempty_workdir",
        "data_dir",
        "mesh",
        "coordinator",
        "num_processes",
        "process_id",
    }
    assert flags.free_fields(Config()) == places


def test_setup_ends_in_one_line(capsys) -> None:
    with pytest.raises(SystemExit) as stopped, flags.setup():
        raise ValueError("no such thing; try another")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: no such thing; try another\n"
