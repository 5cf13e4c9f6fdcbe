"""Configurations from flags and presets, and their errors."""

import dataclasses
import functools

import pytest
from absl import flags as absl_flags

from experiments import flags
from experiments.vq_config import PRESETS, Config


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
