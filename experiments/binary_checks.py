"""Which settings of `binary_vae` fit each other: ValueErrors with the remedy."""

from typing import TYPE_CHECKING

from experiments import binary_names as names
from experiments import boltzmann_config

if TYPE_CHECKING:
    from experiments.binary_config import Config

_WHY_SMOOTHING = {
    names.DVAE: "its gradient is made for a spike at zero; use --method=dvaepp for the others",
    names.DVAEPP: "the smooth posterior of a bit given zeta carries the gradient, and spikes have "
    "none; use --method=dvae for spike_exp, --method=dvaes for gaussian_integral",
    names.DVAES: "it needs the density of zeta, and spikes have none; use --method=dvae for them",
}


def directed(config: "Config") -> None:
    """Raises ValueError for what a directed prior cannot be trained with."""
    for name in ("method", "smoothing", "sampler"):
        if value := getattr(config, name):
            directed = "; --estimator names the smoothing of a directed prior"
            raise ValueError(
                f"--{name}={value} goes with --prior=rbm"
                f"{directed if value in names.SMOOTHINGS else ''}"
            )
    if config.bound not in (names.JOINT, names.MARGINAL):
        raise ValueError(
            f"--bound={config.bound} goes with --prior=rbm; use --bound=joint or marginal"
        )
    if config.bound == names.MARGINAL and config.estimator not in names.WITH_DENSITY:
        raise ValueError(
            f"--bound=marginal needs an estimator whose zeta has a density, one of "
            f"{', '.join(names.WITH_DENSITY)}, got --estimator={config.estimator}; use "
            "--bound=joint"
        )
    if config.estimator in names.ONE_GROUP and config.num_groups > 1:
        raise ValueError(
            f"--estimator={config.estimator} takes one group of bits, got --num_groups="
            f"{config.num_groups}; use a relaxation, reinforce, reinforce_loo, nvil or vimco"
        )
    # 2^n of a mistyped n would fill the memory by itself.
    too_many = config.num_latents >= names.MAX_EXACT_ROWS.bit_length() or (
        config.batch_size << config.num_latents > names.MAX_EXACT_ROWS
    )
    if config.estimator == names.EXACT and too_many:
        raise ValueError(
            f"--estimator=exact decodes all 2^n states of every image, at most "
            f"{names.MAX_EXACT_ROWS} in all, got --num_latents={config.num_latents} and "
            f"--batch_size={config.batch_size}; use fewer latents, a smaller batch or another "
            "estimator"
        )
    if config.estimator in names.MULTI_SAMPLE and config.num_samples < 2:
        raise ValueError(
            f"--num_samples must be at least 2 for {config.estimator} (its baseline leaves one "
            f"out), got {config.num_samples}"
        )
    if config.normalization == names.BATCH and config.estimator in names.SCORE_FUNCTION:
        raise ValueError(
            f"--normalization=batch makes an image's likelihood depend on the other images' bits, "
            f"which biases --estimator={config.estimator}; use a relaxation"
        )


def boltzmann(config: "Config") -> None:
    """Raises ValueError for what a Boltzmann prior cannot be trained with."""
    if config.estimator != names.EXPONENTIAL:
        raise ValueError(
            f"--estimator={config.estimator} goes with --prior=directed; with --prior=rbm choose "
            "--method and --smoothing"
        )
    allowed = names.SMOOTHINGS_OF[config.method]
    if config.smoothing not in allowed:
        raise ValueError(
            f"--method={config.method} takes --smoothing={' or '.join(allowed)}, got "
            f"{config.smoothing}: {_WHY_SMOOTHING[config.method]}"
        )
    if config.bound not in (names.ELBO, names.IW):
        raise ValueError(
            f"--bound={config.bound} goes with --prior=directed; use --bound=elbo or iw"
        )
    if config.bound == names.IW and config.method != names.DVAES:
        raise ValueError(
            f"--method={config.method} trains by the ELBO alone: its KL is a mean in closed form, "
            "and importance weights need log p(zeta) of a sample; use --method=dvaes, or "
            "--bound=elbo"
        )
    boltzmann_config.check_machine(config)
