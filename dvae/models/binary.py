"""The networks of `mlp` as functions of latents, at some parameters and images, and draws of q."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dvae.distributions import bernoulli
from dvae.models import checks, mlp

__all__ = ["Draw", "Groups", "Networks", "Run", "ancestral", "apply", "bind", "bind_training"]

PyTree = Any
Groups = Sequence[jax.Array]  # latents, one array [..., n] a group
Run = Callable[..., jax.Array]  # (method, *inputs) -> output, at some parameters


class Networks(NamedTuple):
    """The model at given parameters, as functions of latents; x is float 0 or 1."""

    posterior_logits: Callable[[Groups], jax.Array]  # of one batch of images
    prior_logits: Callable[[Groups], jax.Array]  # of directed priors
    log_likelihood: Callable[[Groups], jax.Array]  # log p(x | groups), [..., B]
    frozen_log_likelihood: Callable[[Groups], jax.Array]  # the same, no gradient in the parameters


def apply(
    module: nn.Module,
    params: PyTree,
    method: Callable[..., jax.Array],
    *args: Any,
    batch_stats: PyTree = None,
) -> Any:
    """Calls a method of a module at the given parameters, and moving averages if it has them."""
    return module.apply(_variables(params, batch_stats), *args, method=method)


def _variables(params: PyTree, batch_stats: PyTree) -> PyTree:
    return {"params": params, **({"batch_stats": batch_stats} if batch_stats else {})}


def bind(
    module: mlp.BinaryVAE,
    network: PyTree,
    mean: jax.Array,
    x: jax.Array,
    batch_stats: PyTree = None,
    labels: jax.Array | None = None,
) -> Networks:
    """Returns the functions of the model on images x [B, D], given the training mean [D].

    Batch norm, if there is any, uses the moving averages `batch_stats`. Labels, float [B, C],
    one-hot or real, are those of the images where the model has labels.

    Raises:
        ValueError: x is no float [B, D], or as a NumPy array holds other values than 0 and 1.
    """

    def at(network: PyTree) -> Run:
        return lambda method, *args: apply(module, network, method, *args, batch_stats=batch_stats)

    return _networks(at(network), lambda: at(jax.lax.stop_gradient(network)), mean, x, labels)


def bind_training(
    module: mlp.BinaryVAE,
    network: PyTree,
    mean: jax.Array,
    x: jax.Array,
    batch_stats: PyTree,
    labels: jax.Array | None = None,
) -> tuple[Networks, Callable[[], PyTree]]:
    """Returns the functions of the model, and one that returns the averages after their use.

    Batch norm, if there is any, takes the moments of the batch. Its averages move at every call of
    a network, so each may be called once a step.
    """
    if not module.config.batch_norm:
        return bind(module, network, mean, x, labels=labels), lambda: batch_stats
    training = module.clone(train=True)

    def at(network: PyTree) -> mlp.BinaryVAE:
        return training.bind(_variables(network, batch_stats), mutable=["batch_stats"])

    def run_of(bound: mlp.BinaryVAE) -> Run:
        return lambda method, *args: method(bound, *args)

    bound = at(network)
    frozen = lambda: run_of(at(jax.lax.stop_gradient(network)))
    networks = _networks(run_of(bound), frozen, mean, x, labels)
    return networks, lambda: bound.variables["batch_stats"]


def _networks(
    run: Run,
    frozen: Callable[[], Run],
    mean: jax.Array,
    x: jax.Array,
    labels: jax.Array | None,
) -> Networks:
    """Returns the functions by `run`, and by the one that `frozen` makes when it is needed."""
    checks.check_floats("mean", mean, ("D",))
    checks.check_floats("x", x, ("B", mean.shape[0]))
    checks.check_images(x, kind=checks.BITS, shape=x.shape, name="x")
    centered = x - mean[None]

    def log_likelihood(run: Run, groups: Groups) -> jax.Array:
        logits = run(mlp.BinaryVAE.pixel_logits, groups, labels)
        return bernoulli.log_prob(jnp.broadcast_to(x, logits.shape), logits).sum(-1)

    return Networks(
        lambda earlier: run(mlp.BinaryVAE.posterior_logits, centered, earlier, labels),
        lambda earlier: run(mlp.BinaryVAE.prior_logits, earlier, labels),
        lambda groups: log_likelihood(run, groups),
        lambda groups: log_likelihood(frozen(), groups),
    )


class Draw(NamedTuple):
    """Bits drawn group by group, without gradient, and their log-probabilities, with it."""

    groups: list[jax.Array]  # one [*lead, B, n] a group
    log_likelihood: jax.Array  # [*lead, B] log p(x|z)
    log_q: jax.Array  # [*lead, B] sum over groups
    log_ratios: jax.Array  # [parts, *lead, B] log q - log p, one part for each of the prior's


def ancestral(
    key: jax.Array,
    model: Networks,
    num_groups: int,
    shape: tuple[int, ...] = (),
    *,
    log_prior: Callable[[Groups], jax.Array] | None = None,
) -> Draw:
    """Draws z_1 ~ q(z_1|x), z_2 ~ q(z_2|x, z_1), ...

    Args:
        key: typed PRNG key.
        model: networks on B images.
        num_groups: of the posterior.
        shape: the first group's sample shape, `lead`.
        log_prior: log p(z) of all groups in one part, [*lead, B]; by default the model's directed
            prior, one part a group.
    """
    groups: list[jax.Array] = []
    log_q: list[jax.Array] = []
    log_p: list[jax.Array] = []
    for key_group in jax.random.split(key, num_groups):
        logits = model.posterior_logits(groups)
        # Later groups' logits already have the sample axes of the earlier ones.
        z = jax.lax.stop_gradient(bernoulli.sample(key_group, logits, () if groups else shape))
        log_q.append(bernoulli.log_prob(z, jnp.broadcast_to(logits, z.shape)).sum(-1))
        if log_prior is None:
            prior = jnp.broadcast_to(model.prior_logits(groups), z.shape)
            log_p.append(bernoulli.log_prob(z, prior).sum(-1))
        groups.append(z)
    total = sum(log_q[1:], log_q[0])
    ratios = (
        jnp.stack(log_q) - jnp.stack(log_p)
        if log_prior is None
        else (total - log_prior(groups))[None]
    )
    return Draw(groups, model.log_likelihood(groups), total, ratios)
