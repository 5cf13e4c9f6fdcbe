"""A Boltzmann machine as the prior of groups of bits given a label, whose units are clamped.

The machine has the n bits of all groups first, then a unit for each of C labels:

    log p(z | y) = -E(z, y) - log Z(y),    log Z(y) = log sum_z e^{-E(z, y)},    y one-hot

    graph = boltzmann.graphs.with_labels(boltzmann.graphs.complete(n), C)
    params = boltzmann.Machine(jnp.zeros(n + C), jnp.zeros(graph.num_edges), graph)
    chains = gibbs.init(key, params, 100, clamp=clamp(params, C), values=values(params, 100, C))
    chains, _ = gibbs.step(key, params, chains, num_sweeps=40, clamp=clamp(params, C))
    estimate = log_z(key, params, num_labels=C)                                      # [C] each
    with_gradient = log_z_with_gradient(params, estimate.value, chains.z)            # [C]
    loss = kl(params, logits, log_ratios, with_gradient, labels)                     # [B]

The bias of a label is in E(z, y) and in log Z(y) alike, so that p(z | y) does not depend on it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dvae import boltzmann, rbm
from dvae.boltzmann import Machine
from dvae.models.boltzmann import SAMPLE_SWEEPS, GraphChains
from dvae.models.boltzmann import log_prob as joint_log_prob
from dvae.rbm._checks import is_known

__all__ = [
    "clamp",
    "given",
    "kl",
    "labels_of",
    "log_prob",
    "log_z",
    "log_z_with_gradient",
    "sample",
    "values",
]

_CERTAIN = 1e3  # the logit of a label: its sigmoid is 1 or 0 and its entropy 0, exactly


def clamp(params: Machine, num_labels: int) -> np.ndarray:
    """Tells which units hold the label: NumPy's bool [n + C], the last C.

    Raises:
        ValueError: the machine has no other units, or there is no label.
    """
    total = params.graph.num_units
    if not 1 <= num_labels < total:
        raise ValueError(
            f"num_labels must be from 1 to {total - 1}, the machine has {total} units with those "
            f"of the labels; got {num_labels}"
        )
    return np.arange(total) >= total - num_labels


def values(params: Machine, num_chains: int, num_labels: int) -> np.ndarray:
    """Returns what clamped units of chains hold, [chains, n + C]: chain c has the label c mod C."""
    labels = np.arange(num_chains) % num_labels
    return np.eye(params.graph.num_units, dtype=np.float32)[labels - num_labels]


def labels_of(z: jax.Array, num_labels: int) -> jax.Array:
    """Reads the labels, int [...], of units [..., n + C]."""
    return jnp.argmax(z[..., -num_labels:], axis=-1)


def given(
    params: Machine, label: jax.typing.ArrayLike, num_labels: int
) -> tuple[Machine, jax.Array]:
    """Makes the machine of the bits at a label, and what its energies lack.

    Its log Z less the constant is log Z(y); see `boltzmann.condition`.

    Args:
        params: machine of n + C units.
        label: int [] in 0 .. C - 1.
        num_labels: C.

    Returns:
        Machine of n units, and [] nats.

    Raises:
        ValueError: the machine has no other units, or there is no such label.
    """
    held = clamp(params, num_labels)
    _check_labels(label, num_labels)
    return boltzmann.condition(params, held, _units(params, label, num_labels))


def log_z(key: jax.Array, params: Machine, *, num_labels: int, **settings: Any) -> rbm.ais.LogZ:
    """Estimates log Z(y) of every label by `boltzmann.ais.log_z`, one after the other.

    Args:
        key: typed PRNG key.
        params: machine of n + C units; no gradient flows.
        num_labels: C.
        **settings: of `boltzmann.ais.log_z`: num_temperatures, num_chains, sharding.

    Returns:
        `rbm.ais.LogZ` of arrays [C].

    Raises:
        ValueError: the machine has no other units, or a setting is wrong.
    """

    def of_label(label: jax.Array) -> rbm.ais.LogZ:
        machine, constant = given(params, label, num_labels)
        found = boltzmann.ais.log_z(jax.random.fold_in(key, label), machine, **settings)
        return found._replace(value=found.value - jax.lax.stop_gradient(constant))

    return jax.lax.map(of_label, jnp.arange(num_labels))


def log_z_with_gradient(params: Machine, log_z: jax.Array, z: jax.Array) -> jax.Array:
    """Returns log Z(y) of every label, with the gradient of its own chains.

        d log Z(y) / d theta = -E_{p(z | y)}[dE(z, y) / d theta]

    Args:
        params: machine of n + C units; receives the gradient.
        log_z: [C] nats, the current estimates; receive none.
        z: [chains, n + C] bits, at least one chain of each label; receive none.

    Returns:
        [C] nats, equal to log_z.

    Raises:
        ValueError: the sizes do not fit.
    """
    # 0 for the chains that hold the label, -inf for all others.
    log_weights = jnp.log(z[:, -log_z.shape[0] :].T)
    return boltzmann.kl.log_z_with_gradient(params, log_z, z, log_weights)


def log_prob(
    params: Machine, log_z: jax.Array, groups: Sequence[jax.Array], labels: jax.Array
) -> jax.Array:
    """Evaluates log p(z | y) of bits, nats [..., B].

    Args:
        params: machine of n + C units.
        log_z: [C] nats, log Z(y) of every label.
        groups: one float [..., B, n] a group.
        labels: int [B] of the images.

    Raises:
        ValueError: the groups and labels have not as many units as the machine, or there is no such
            label. One that is traced then gives NaN.
    """
    _check_labels(labels, log_z.shape[0])
    shape = groups[0].shape[:-1]
    one_hot = jax.nn.one_hot(labels, log_z.shape[0], dtype=groups[0].dtype)
    seen = jnp.broadcast_to(one_hot, (*shape, log_z.shape[0]))
    return joint_log_prob(params, jnp.broadcast_to(_at(log_z, labels), shape), [*groups, seen])


def kl(
    params: Machine,
    logits: Sequence[jax.Array],
    log_ratios: Sequence[jax.Array],
    log_z: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    """Evaluates KL(q(z, zeta | x, y) || p(z, zeta | y)) at one sample of zeta, nats [B].

    That of `boltzmann.kl.hierarchical`, where the label is the first group: its bits are certain,
    and later bits meet it by the means that they have before their zeta is known. For one group no
    sample of zeta is needed.

    Args:
        params: machine of n + C units.
        logits: one [B, n] a group, of q(z_g | x, y, zeta_<g).
        log_ratios: one [B, n] a group, as for `hierarchical`.
        log_z: [C] nats, usually of `log_z_with_gradient`.
        labels: int [B] of the images.

    Raises:
        ValueError: as for `log_prob`.
    """
    _check_labels(labels, log_z.shape[0])
    sizes = [x.shape[-1] for x in logits]
    total, count = sum(sizes), log_z.shape[0]
    groups = [np.arange(total, total + count), *np.split(np.arange(total), np.cumsum(sizes)[:-1])]
    certain = _CERTAIN * (2 * jax.nn.one_hot(labels, count) - 1)
    return boltzmann.kl.hierarchical(
        params,
        [certain, *logits],
        [jnp.zeros_like(certain), *log_ratios],
        _at(log_z, labels),
        groups=groups,
    )


def sample(
    key: jax.Array,
    params: Machine,
    chains: GraphChains,
    labels: jax.Array,
    *,
    num_labels: int,
    num_groups: int,
) -> list[jax.Array]:
    """Continues chains of the training by Gibbs sweeps, each with its label clamped.

    A sample starts from a chain that has had its label all along: chains of another label may be in
    modes that the sweeps do not leave. Where a label has fewer chains than samples, several start
    from the same one.

    Args:
        key: typed PRNG key.
        params: machine of n + C units.
        chains: where to start.
        labels: int [num_samples] of the samples.
        num_labels: C.
        num_groups: equal groups that the bits are cut into.

    Returns:
        Bits [num_samples, n] of each group.

    Raises:
        ValueError: there is no such label.
    """
    held = clamp(params, num_labels)
    _check_labels(labels, num_labels)
    index = _start(labels_of(chains.z, num_labels), labels, num_labels)
    after, _ = boltzmann.gibbs.step(
        key,
        params,
        boltzmann.gibbs.GibbsState(chains.z[index]),
        num_sweeps=SAMPLE_SWEEPS,
        clamp=held,
        values=_units(params, labels, num_labels),
    )
    return jnp.split(after.z[:, :-num_labels], num_groups, axis=-1)


def _check_labels(labels: jax.typing.ArrayLike, num_labels: int) -> None:
    """Raises ValueError for a known label that is none of 0 .. C - 1."""
    if is_known(labels):
        known = np.asarray(labels)
        outside = known[(known < 0) | (known >= num_labels)]
        if outside.size:
            raise ValueError(f"labels must be from 0 to {num_labels - 1}, got {outside.flat[0]}")


def _at(log_z: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns log Z of each label; NaN for one that is none."""
    valid = (labels >= 0) & (labels < len(log_z))
    return jnp.where(valid, log_z[labels], jnp.nan)


def _units(params: Machine, labels: jax.typing.ArrayLike, num_labels: int) -> jax.Array:
    """Returns what the clamped units hold, [..., n + C]."""
    total = params.graph.num_units
    # Not in the type of labels: of bytes a unit can be out of reach.
    return jax.nn.one_hot(jnp.asarray(labels, jnp.int32) + total - num_labels, total)


def _start(of_chains: jax.Array, labels: jax.Array, num_labels: int) -> jax.Array:
    """Returns a chain of the label of each sample, in turn; any chain where there is none."""
    one_hot = jax.nn.one_hot(labels, num_labels, dtype=jnp.int32)
    earlier = jnp.sum((jnp.cumsum(one_hot, axis=0) - 1) * one_hot, axis=-1)  # of the same label
    counts = jnp.bincount(of_chains, length=num_labels)
    order = jnp.argsort(of_chains)  # by label, and as they come within it
    first = jnp.cumsum(counts) - counts
    place = first[labels] + earlier % jnp.maximum(counts[labels], 1)
    return order[jnp.minimum(place, len(of_chains) - 1)]
