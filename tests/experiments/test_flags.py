"""Configurations from flags and presets, and their errors."""

import dataclasses
import errno
import functools
from unittest import mock

import jax
import pytest
from command_line import fresh_flags
from programs import EXPERIMENTS

from dvae.data import DataUnavailableError
from experiments import compare_samplers, encode, vq_compress
from experiments.binary_vae import config as binary_config
from experiments.binary_vae import names as binary_names
from experiments.binary_vae import presets as binary_presets
from experiments.cifar_vq.config import Config
from experiments.cifar_vq.presets import PRESETS
from experiments.common import flag_rules, flags
from experiments.dvaepp import config as dvaepp_config
from experiments.gradient_variance import config as gradient_variance_config
from experiments.joint_vae import config as joint_config

CONFIGS = [
    Config,
    binary_config.Config,
    joint_config.Config,
    dvaepp_config.Config,
    gradient_variance_config.Config,
    compare_samplers.Config,
    vq_compress.Config,
]


def parse_line(config_class, presets, *arguments):
    """Parses a command line with a fresh set of flags."""
    values = fresh_flags(config_class, presets)
    values(["program", *arguments])
    with mock.patch.object(flags.absl_flags, "FLAGS", values):
        return flags.parse(config_class, presets)


@pytest.fixture(name="parse")
def make_parse():
    """Parses a command line of `cifar_vq`."""
    return functools.partial(parse_line, Config, PRESETS)


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
        ("dataset", "imagenet", "--dataset=imagenet: unknown data set 'imagenet'; .* cifar10, .*"),
        ("dataset", "cifar", "did you mean cifar10"),
        ("temperature", 0.0, "--temperature=0.0 must be greater than 0"),
        ("temperature", float("nan"), "--temperature=nan must be finite"),
        ("codebook_size", 1, "--codebook_size=1 must be at least 2"),
        ("num_latents", 0, "--num_latents=0 must be at least 1"),
        ("batch_size", -4, "--batch_size=-4 must be at least 1"),
        ("crop", 18, "--crop=18 must be a multiple of 4"),
        ("test_share", 1.0, "--test_share=1 must be below 1"),
        ("data_on", "disk", "--data_on=disk must be one of device, host, files"),
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


def test_an_empty_choice_has_a_word() -> None:
    with pytest.raises(ValueError, match="--split=dev must be one of empty, train, validation, t"):
        encode.Config(split="dev")


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
    with pytest.raises(ValueError, match="--preset=huge must be one of paper, best, small"):
        parse("--preset=huge")


def test_only_where_things_are_may_change() -> None:
    places = {
        "workdir",
        "nonempty_workdir",
        "time_limit",
        "dry_run",
        "compilation_cache",
        "data_dir",
        "data_on",
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


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (
            "cifar_vq",
            ["--estimator=vimco", "--temperature=0.1"],
            "--temperature=0.1 goes with --estimator=gs_soft or gs_hard, got --estimator=vimco",
        ),
        ("cifar_vq", ["--estimator=vq", "--temperature=0.5"], "--temperature=0.5 goes with"),
        ("cifar_vq", ["--preset=small", "--num_samples=4"], "--num_samples=4 goes with --estim"),
        ("cifar_vq", ["--estimator=vq", "--initial_logit_std=1"], "goes with --estimator=gs_soft,"),
        ("cifar_vq", ["--eval_interval=0", "--num_eval_images=9"], "--eval_interval above 0, got"),
        ("binary_vae", ["--estimator=vimco", "--temperature=0.1"], "--temperature=0.1 goes with"),
        ("binary_vae", ["--beta_steps=10"], "goes with --beta_final above 0, "),
        ("binary_vae", ["--num_chains=10"], "with --prior=rbm or boltzmann, got --prior=directed"),
        ("binary_vae", ["--prior=rbm", "--estimator=exponential"], "goes with --prior=directed"),
        ("binary_vae", ["--prior=rbm", "--bound=elbo"], "goes with .*--method=dvaes"),
        ("binary_vae", ["--prior=rbm", "--graph=complete"], "goes with --prior=boltzmann"),
        ("binary_vae", ["--prior=boltzmann", "--method=dvaepp"], "goes with --prior=rbm"),
        ("binary_vae", ["--estimator=nvil", "--bound=joint"], "--bound=joint goes with"),
        ("binary_vae", ["--nvil_scale=none"], "goes with .*--estimator=nvil, got"),
        (
            "binary_vae",
            ["--estimator=concrete", "--bound=marginal", "--concrete_kl=sample"],
            "--concrete_kl=sample goes with --bound=joint, got",
        ),
        ("binary_vae", ["--estimator=rebar", "--baseline_learning_rate=1"], "nvil or muprop, got"),
        ("binary_vae", ["--adam_b2=1"], "--adam_b2=1 must be below 1"),
        ("binary_vae", ["--structure=linear", "--hidden_units=9"], "--structure=nonlinear, got"),
        ("joint_vae", ["--objective=elbo", "--gamma=3"], "goes with --objective=capacity, got"),
        ("joint_vae", ["--discrete=", "--temperature=1"], "goes with --discrete not empty, got"),
        ("joint_vae", ["--continuous=0", "--capacity_continuous=1"], "--continuous above 0, got"),
        (
            "dvaepp",
            ["--global_latents=normal", "--beta=3"],
            "--beta=3.0 goes with --global_latents",
        ),
        ("dvaepp", ["--local_groups=0", "--local_size=3"], "--local_groups above 0, got"),
        ("dvaepp", ["--num_mixtures=3"], "patches or own images, got"),
        ("dvaepp", ["--kl_balancing=on"], "goes with --kl_warmup_steps above 0, got"),
        ("gradient_variance", ["--estimators=disarm", "--betas=3"], "goes with --estimators="),
    ],
)
def test_a_flag_that_does_nothing_is_refused(program, arguments, message) -> None:
    config_class, presets = EXPERIMENTS[program]
    with pytest.raises(ValueError, match=message) as error:
        parse_line(config_class, presets or None, *arguments)
    assert "\n" not in str(error.value)


def idle_of(config):
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return set(flag_rules.idle(flags.rules_of(type(config)), values))


OVERRIDES = {
    "cifar_vq": [f"--estimator={name}" for name in ("gs_soft", "gs_hard", "vimco", "vq", "vq_ema")],
    "joint_vae": [
        *(f"--objective={name}" for name in ("capacity", "elbo", "beta")),
        "--continuous=0",
        "--discrete=",
    ],
    "dvaepp": [
        *(f"--global_latents={name}" for name in dvaepp_config.GLOBAL_LATENTS),
        *(f"--local_latents={name}" for name in ("normal", "bernoulli")),
        "--eval_interval=0",
    ],
    "binary_vae": [
        *(f"--estimator={n}" for n in binary_names.ESTIMATORS if n not in binary_names.ONE_GROUP),
        "--structure=linear",
        "--eval_interval=0",
    ],
}


@pytest.mark.parametrize("program", OVERRIDES)
def test_presets_go_with_every_override(program) -> None:
    """What the override makes idle is left out, and so has its default."""
    config_class, presets = EXPERIMENTS[program]
    for name, preset in presets.items():
        base = config_class(**preset)
        assert parse_line(config_class, presets, f"--preset={name}") == base
        if program == "binary_vae" and (
            base.prior != "directed" or base.normalization == "batch" or base.num_groups > 1
        ):
            continue
        for word in OVERRIDES[program]:
            config = parse_line(config_class, presets, f"--preset={name}", word)
            key, value = word.removeprefix("--").split("=")
            assert str(getattr(config, key)) == value
            for field in idle_of(config) - idle_of(base) - {key}:
                assert getattr(config, field) in (
                    next(f.default for f in dataclasses.fields(config) if f.name == field),
                    "joint",  # what an open bound is settled to
                    "elbo",
                    "pcd",
                ), (name, word, field)


def test_a_preset_of_a_boltzmann_prior_goes_with_a_directed_one() -> None:
    config_class, presets = EXPERIMENTS["binary_vae"]
    line = functools.partial(parse_line, config_class, presets)
    directed = line("--preset=table2_cpu_1nonlinear_rbm_power", "--prior=directed")
    assert (directed.method, directed.smoothing, directed.num_chains) == ("", "", 1_000)
    assert directed.beta == 30.0
    marginal = line("--preset=table1_linear_exponential_marginal", "--estimator=nvil")
    assert (marginal.bound, marginal.beta_final) == ("joint", 0.0)
    machine = line("--preset=table1_linear_rebar", "--prior=rbm", "--num_chains=10")
    assert (machine.estimator, machine.temperature) == ("exponential", 0.4)
    kept = line("--preset=table2_cpu_1nonlinear_joint")
    assert kept.num_chains == binary_presets.PRESETS["table2_cpu_1nonlinear_joint"]["num_chains"]


@pytest.fixture(name="end")
def make_end(monkeypatch, capsys):
    """Runs a program that ends in an error, and returns its exit status and what it says."""

    def end(error):
        def main(arguments):
            raise error

        monkeypatch.setattr(flags.app, "run", lambda guarded, **_: guarded([]))
        with pytest.raises(SystemExit) as stopped:
            flags.run(main)
        return stopped.value.code, capsys.readouterr().err

    return end


def test_a_file_found_damaged_while_training_ends_in_one_line(end) -> None:
    error = DataUnavailableError("7.png cannot be read\n(it is truncated)")
    assert end(error) == (1, "error: 7.png cannot be read (it is truncated)\n")


def test_a_full_disk_ends_in_one_line(end) -> None:
    line = (
        "error: No space left on device; make room on the disk and start the same command again\n"
    )
    assert end(OSError(errno.ENOSPC, "No space left on device")) == (1, line)


def test_a_mistake_with_a_file_keeps_its_traceback(end) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        end(OSError(errno.EBADF, "Bad file descriptor"))
