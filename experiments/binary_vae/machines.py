"""What a Boltzmann prior of `binary_vae` can be trained with."""

from experiments.binary_vae import names
from experiments.boltzmann import graphs
from experiments.boltzmann.config import check_sampler, check_sides

_WHY_SMOOTHING = {
    names.DVAE: "its gradient is made for a spike at zero; use --method=dvaepp for the others",
    names.DVAEPP: "the smooth posterior of a bit given zeta carries the gradient, and spikes have "
    "none; use --method=dvae for spike_exp, --method=dvaes for gaussian_integral",
    names.DVAES: "it needs the density of zeta, and spikes have none; use --method=dvae for them",
}


def check(
    config: graphs.GraphConfig,
    *,
    prior: str,
    estimator: str,
    method: str,
    smoothing: str,
    bound: str,
) -> None:
    """Checks settings that were settled, and settles the graph of a general machine.

    Args:
      config: everything else.
      prior: one of `names.MACHINES`.
      estimator: of directed priors, so left at its default.
      method: how the machine is trained.
      smoothing: of the bits.
      bound: that is trained.

    Raises:
      ValueError: they do not fit each other.
    """
    general = prior == names.GENERAL
    if estimator != names.EXPONENTIAL:
        raise ValueError(
            f"--estimator={estimator} goes with --prior=directed; with --prior={prior} choose "
            f"{'' if general else '--method and '}--smoothing"
        )
    if general and method != names.DVAEPP:
        raise ValueError(
            f"--method={method} goes with --prior=rbm: its gradient, or its relaxation of the "
            "prior, is made for two sides; use --method=dvaepp"
        )
    allowed = names.SMOOTHINGS_OF[method]
    if smoothing not in allowed:
        raise ValueError(
            f"--method={method} takes --smoothing={' or '.join(allowed)}, got {smoothing}: "
            f"{_WHY_SMOOTHING[method]}"
        )
    if bound not in (names.ELBO, names.IW):
        raise ValueError(f"--bound={bound} goes with --prior=directed; use --bound=elbo or iw")
    if bound == names.IW and method != names.DVAES:
        raise ValueError(
            f"--method={method} trains by the ELBO alone: its KL is a mean in closed form, and "
            "importance weights need log p(zeta) of a sample; use --method=dvaes, or --bound=elbo"
        )
    check_sampler(config)
    if general:
        graphs.settle(config)
    elif config.graph:
        raise ValueError(f"--graph={config.graph} goes with --prior=boltzmann, got --prior=rbm")
    else:
        check_sides(config)
