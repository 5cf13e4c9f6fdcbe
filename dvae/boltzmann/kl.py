"""The KL of a hierarchical posterior from a machine on any graph, and log Z with its gradient.

The posterior has groups of bits, q(z_g | x, zeta_<g), each of any units. Units that no group covers
are hidden, and summed over by sampling:

    clamp = kl.coverage(graph, groups)
    bits = kl.sample_bits(key, params, logits, log_ratios, groups=groups)     # [batch, n]
    chains = gibbs.init(key, params, batch, clamp=clamp, values=bits)
    chains, _ = gibbs.step(key, params, chains, num_sweeps=40, clamp=clamp)
    loss = kl.hierarchical(params, logits, log_ratios, log_z, groups=groups, samples=chains.z[None])
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from dvae._numerics import ArrayLike, float_dtype, partition, sigmoid, spec_of
from dvae.boltzmann import _cover, _hidden, _sums
from dvae.boltzmann._cover import Cover, Groups
from dvae.boltzmann._graph import Graph
from dvae.boltzmann._machine import (
    Machine,
    check_chains,
    check_machine,
    check_units,
    dtype_of,
    widened,
)
from dvae.boltzmann._sweep import BIT, are_bits
from dvae.distributions import bernoulli
from dvae.rbm._checks import is_known
from dvae.rbm._estimates import check_log_z, with_negative_phase
from dvae.rbm.gibbs import draw

__all__ = ["coverage", "hierarchical", "log_z_with_gradient", "sample_bits"]


def hierarchical(
    params: Machine,
    logits: Sequence[jax.Array],
    log_ratios: Sequence[jax.Array],
    log_z: ArrayLike,
    *,
    groups: Groups = None,
    samples: ArrayLike | None = None,
) -> jax.Array:
    """Evaluates KL(q(z, zeta | x) || p(z, zeta)) at one sample of zeta; its mean is the KL.

        log Z - sum_g H(q(z_g | x, zeta_<g)) - b.mu
              - sum_{edges in one group} w_ij mu_i mu_j - sum_{edges g < h} w_ij nu_i mu_j,

    i in the earlier group g and j in the later one h; mu = sigmoid(l) are the probabilities of a
    group before its zeta is known, nu = sigmoid(l + log r(zeta|1) - log r(zeta|0)) those once it
    is. Why: r(zeta|z) is in both densities and cancels, so the KL is log Z + E[E(z)] less the
    entropies. Given x and zeta_<g the bits of g are independent with means mu: so are two bits of
    one edge in g. For an edge from g to h take x and zeta_<h as given: then z_i has mean nu_i, by
    Bayes' rule, z_j has mean mu_j, and z_j depends on z_i through zeta_<h alone, so that the
    mean of z_i z_j is nu_i mu_j. For one group no sample is needed, and for a bipartite graph it is
    `rbm.kl.hierarchical`.

    Hidden units h make p(v) = sum_h p(v, h) the prior of the covered bits v. With k the nu of all
    groups but the last, which has mu, given all zeta the bits v are independent with means k, and

        G(v) = -log sum_h e^{-E(v, h) + E(v, 0)}

    is to be added to the above. Its gradient has two parts. That of the machine is the mean of
    dE/dtheta over h ~ p(h | v). That of k_i is G at v_i = 1 less G at v_i = 0, where

        G(v') = G(v) - log E_{h ~ p(h | v)}[e^{E(v, h) - E(v, 0) - E(v', h) + E(v', 0)}],

    a mean over the samples, biased by the log as 1 / S. Of the hidden units an independent set is
    summed out exactly. In value G is replaced by its mean over samples without the entropy of the
    other hidden units, which it exceeds by that: never below the KL in the mean. If no edge joins
    two hidden units, value and gradient are exact for any S.

    Source: Vahdat et al., "DVAE++" (2018), sec. 5 and eq. 6, from RBMs to graphs.

    Args:
        params: Machine.
        logits: one [..., m] a group, l of q(z_g | x, zeta_<g).
        log_ratios: one [..., m] a group, `relax.NAME.log_ratio(zeta_g, beta)`, differentiable in
            zeta; those of the last group are not used.
        log_z: [] log Z in nats, usually of `log_z_with_gradient`; or [...], one for each KL, of
            machines that differ in clamped units.
        groups: units of each group, static; by default the groups fill the units in order.
        samples: [S, ..., n] bits of all units, needed if some are hidden: those of `sample_bits`,
            the same in all S, and S draws of the hidden units given them. Receive no gradient.

    Returns:
        [...] nats, at least float32.

    Raises:
        ValueError: if groups and machine do not fit each other, hidden units have no samples, or
            log_z is a `LogZ`.
    """
    params, log_z = check_machine(params), check_log_z(log_z, scalar=False)
    found = _cover.checked(params.graph, groups, logits, log_ratios)
    before, after = _cover.probability_logits(logits, log_ratios)
    batch = before.shape[:-1]
    if len(found.hidden) and samples is None:
        raise ValueError(
            f"units {_few(found.hidden)} are hidden, in no group: pass samples= of them, or groups "
            "that cover all units"
        )
    if not len(found.hidden) and samples is not None:
        raise ValueError("samples are for hidden units, and the groups cover all units: leave them")
    bits = None
    if samples is not None:
        bits = check_units(params.graph, samples, "samples")
        if bits.shape[1:-1] != batch or not bits.ndim or not bits.shape[0]:
            raise ValueError(
                f"samples must be [S, {', '.join(map(str, (*batch, params.graph.num_units)))}], S "
                f"at least 1, got shape {bits.shape}"
            )
        if is_known(bits) and not np.isin(np.asarray(bits), (0, 1)).all():
            raise ValueError("samples must be bits, 0 or 1")
    entropy = bernoulli.entropy(before).sum(-1)
    spec = PartitionSpec(*spec_of(before)[:-1])
    arrays = params, sigmoid(before), sigmoid(after)
    cross = partition(lambda *x: _cross(found, *x), spec, *arrays)
    if bits is not None:
        term = partition(lambda *x: _hidden.term(found, *x), spec, *arrays, bits)
        cross = cross + jnp.where(are_bits(bits).all(0), term, jnp.nan)
    return log_z - entropy + cross


def _cross(found: Cover, params: Machine, mu: jax.Array, known: jax.Array) -> jax.Array:
    """Evaluates the mean energy of the covered units, [...], from [..., m] group after group."""
    graph = params.graph
    dtype = jnp.promote_types(dtype_of(params), mu.dtype)
    n, leading = graph.num_units, mu.shape[:-1]

    def rows(x: jax.Array) -> jax.Array:
        """Brings probabilities to the units: [n, ...], 0 for hidden ones."""
        zeros = jnp.zeros((n, *leading), dtype)
        return zeros.at[found.units].set(jnp.moveaxis(x.astype(dtype), -1, 0))

    mean, later = rows(mu), rows(known)
    first, second = found.group[graph.edges].T
    weights = params.weights.astype(dtype)
    bias = params.bias.astype(dtype)
    total = jnp.tensordot(bias, mean, 1, precision=_sums.HIGHEST)
    # An edge is (i, j) in the order of the caller: the earlier group may be either end's.
    for chosen, left, right in (
        (first == second, mean, mean),
        (first < second, later, mean),
        (first > second, mean, later),
    ):
        if chosen.any():
            edges = graph.edges[chosen]
            own = _sums.rows(weights, np.flatnonzero(chosen).astype(np.int32))
            total = total + _sums.pairs(edges, own, left, right, is_dense=graph.is_dense)
    return -total


def sample_bits(
    key: jax.Array,
    params: Machine,
    logits: Sequence[jax.Array],
    log_ratios: Sequence[jax.Array],
    *,
    groups: Groups = None,
) -> jax.Array:
    """Draws the covered bits given all zeta, to be clamped where hidden units are sampled.

        z_i ~ Bernoulli(nu_i), mu_i in the last group

    Args:
        key: typed PRNG key.
        params: Machine.
        logits: as for `hierarchical`.
        log_ratios: as for `hierarchical`.
        groups: as for `hierarchical`.

    Returns:
        [..., n] 0 or 1, in the dtype of the logits; 0 for hidden units. No gradient flows.

    Raises:
        ValueError: if groups and machine do not fit each other.
    """
    params = check_machine(params)
    found = _cover.checked(params.graph, groups, logits, log_ratios)
    after = jax.lax.stop_gradient(_cover.probability_logits(logits, log_ratios)[1])
    bits = draw(key, after).astype(float_dtype(*logits))
    zeros = jnp.zeros((*bits.shape[:-1], params.graph.num_units), bits.dtype)
    put = lambda zeros, bits: zeros.at[..., found.units].set(bits)
    return partition(put, spec_of(bits), zeros, bits)


def coverage(graph: Graph, groups: Groups) -> np.ndarray:
    """Tells which units groups cover: the clamp for sampling the hidden ones.

    Args:
        graph: Graph.
        groups: units of each group.

    Returns:
        [n] bool, NumPy.

    Raises:
        ValueError: if a unit is out of range or covered twice.
    """
    found = _cover.cover(graph, groups)
    return found.group < len(found.sizes)


def log_z_with_gradient(
    params: Machine, log_z: ArrayLike, z: ArrayLike, log_weights: ArrayLike | None = None
) -> jax.Array:
    """Returns an estimate of log Z whose gradient is that of the negative phase.

        d log Z / d theta = -E_p[dE/d theta], the mean over samples of the machine.

    Chains whose clamped units have C values between them give C log Z at once, each with the
    gradient of its own chains: weights [C, chains], whose logarithm is -inf for those of others.

    Args:
        params: Machine; receives the gradient.
        log_z: [] or [C] nats, the current estimate (of `ais`, say); receives none.
        z: [chains, n] samples of the machine, bits; receive none.
        log_weights: [chains] of a population (`annealing`), of which the mean is taken with weights
            proportional to their exponential, or [C, chains]; equal ones by default. Values of C
            without chains keep their log Z, and have the gradient 0.

    Returns:
        [] or [C] nats, equal to log_z.

    Raises:
        ValueError: if the sizes do not fit, there is no sample, or log_z is a `LogZ`.
    """
    params, log_z = check_machine(params), check_log_z(log_z, scalar=False)
    z = check_chains(params.graph, z)
    spec = PartitionSpec(*spec_of(z)[:-1])
    energies = partition(_energies, spec, params, jax.lax.stop_gradient(z))
    return with_negative_phase(log_z, energies, log_weights)


def _energies(params: Machine, z: jax.Array) -> jax.Array:
    """Evaluates the energies of bits [chains, n]; NaN for chains with an entry that is none."""
    params = widened(params)
    # Gathers of int8 cost a fourth of those of float32, or less.
    rows = jnp.moveaxis(z, -1, 0).astype(BIT)
    found = _sums.energy(params.graph, params.bias, params.weights, rows)
    return jnp.where(are_bits(z), found, jnp.nan)


def _few(units: np.ndarray) -> str:
    """Writes units, at most five of them."""
    listed = ", ".join(map(str, units[:5].tolist()))
    return f"{listed}, ... ({len(units)} in all)" if len(units) > 5 else listed
