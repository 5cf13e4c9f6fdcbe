"""Parallel tempering of RBMs: replicas from independent units up to the machine exchange states.

    state = tempering.init(key, params, num_chains=1000, num_temperatures=10)
    state, info = tempering.step(key, params, state, num_sweeps=40)   # state.z1, state.z2
    state = tempering.adapt(state, info.swap_rates)                   # in burn-in or training

Replica t of every chain has an inverse temperature b_t, 0 = b_1 < ... < b_T = 1, and the law

    p_t(z) = e^{-E_t(z)} / Z_t,   E_t(z) = -(1 - b_t) (c1.z1 + c2.z2) + b_t E(z),
    c1 = a1 + W 1/2,              c2 = a2 + W^T 1/2.

The last is the machine. The first is independent units of logits c, drawn afresh in every sweep;
by swaps between neighbors its draws travel to the machine, so chains change between modes that
block Gibbs does not leave.

Why c: up to a constant E(z) = -c1.z1 - c2.z2 - (z1 - 1/2)^T W (z2 - 1/2), and b_t scales the last
term alone. Hence nothing depends on which of a unit's values is called 1, and without weights all
replicas are alike. The machine's own biases in place of c can fail in silence: where they balance
large positive weights (a2 = -W^T 1/2), all early replicas have z = 0, all swaps are accepted, and
the mode near z = 1 stays unknown. So can c where it is itself large: a unit with |c| above 10 has
one value in the first replica, and modes with the other may stay unknown.

Swendsen and Wang, "Replica Monte Carlo Simulation of Spin-Glasses" (1986); Desjardins, Courville,
Bengio, Vincent and Delalleau, "Tempered Markov Chain Monte Carlo for Training of Restricted
Boltzmann Machines" (2010).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from dvae._checks import check_count, check_key
from dvae._numerics import as_float, partition, spec_of, upcast, vary_like
from dvae.rbm._bits import flip_rate
from dvae.rbm._checks import check_chains
from dvae.rbm._rbm import RBM, check_rbm, product
from dvae.rbm._replicas import check_ladder, exchange, log_weights, logits, swaps
from dvae.rbm.energy import centered_biases
from dvae.rbm.gibbs import draw

__all__ = ["TemperingInfo", "TemperingState", "adapt", "init", "step"]

_UNIFORM_SHARE = 1e-3  # of an adapted ladder: keeps its steps above the spacing of float32


class TemperingState(NamedTuple):
    """Chains with their replicas, bits in the dtype of the weights; z1 and z2 as in GibbsState."""

    replicas1: jax.Array  # [chains, T, n1] bits, the machine's at T - 1
    replicas2: jax.Array  # [chains, T, n2] bits
    betas: jax.Array  # [T] float32, from 0 to 1
    parity: jax.Array  # [] int32, 0 or 1: the lower replica of the first pair to swap next

    @property
    def z1(self) -> jax.Array:
        """Bits [chains, n1] of the machine itself."""
        return self.replicas1[..., -1, :]

    @property
    def z2(self) -> jax.Array:
        """Bits [chains, n2] of the machine itself."""
        return self.replicas2[..., -1, :]


class TemperingInfo(NamedTuple):
    """What a step did."""

    swap_rates: jax.Array  # [T - 1] mean acceptance probability of each pair of neighbors
    flips: jax.Array  # [] fraction of the machine's own bits that differ from before the step
    log_z: jax.Array  # [] nats, estimate of log Z (see `step`)


class _Totals(NamedTuple):
    """Sums over sweeps, of each chain and pair: [chains, T - 1], at least float32."""

    accepted: jax.Array  # of acceptance probabilities
    log_up: jax.Array  # log of the sum of e^{up / 2}
    log_down: jax.Array  # log of the sum of e^{down / 2}


def init(
    key: jax.Array,
    params: RBM,
    num_chains: int,
    *,
    num_temperatures: int = 10,
    betas: jax.typing.ArrayLike | None = None,
) -> TemperingState:
    """Starts all replicas from the independent units of logits c.

    Args:
        key: typed PRNG key.
        params: RBM.
        num_chains: at least 1.
        num_temperatures: T, at least 2; equally spaced.
        betas: [T] inverse temperatures in place of equally spaced ones, increasing from 0 to 1.

    Returns:
        TemperingState.

    Raises:
        ValueError: if a number is too small, betas are no ladder, or sizes do not fit.
    """
    check_key(key)
    params = check_rbm(params)
    num_chains = check_count("num_chains", num_chains)
    num_temperatures = check_count(
        "num_temperatures", num_temperatures, minimum=2, why="gibbs needs one"
    )
    if betas is None:
        betas = np.linspace(0.0, 1.0, num_temperatures)
    check_ladder(betas)
    ladder = jnp.asarray(betas, jnp.float32)
    params = jax.lax.stop_gradient(params)
    logits = (
        jnp.broadcast_to(c, (num_chains, *ladder.shape, *c.shape)) for c in centered_biases(params)
    )
    bits = (draw(k, c) for k, c in zip(jax.random.split(key), logits, strict=True))
    replicas1, replicas2 = (z.astype(params.weights.dtype) for z in bits)
    return TemperingState(replicas1, replicas2, ladder, jnp.zeros((), jnp.int32))


def step(
    key: jax.Array, params: RBM, state: TemperingState, *, num_sweeps: int = 1
) -> tuple[TemperingState, TemperingInfo]:
    """Runs sweeps: swaps of neighbors, then z1 ~ p_t(z1 | z2) and z2 ~ p_t(z2 | z1) in replica t.

    A swap of replicas t and t + 1 is accepted with probability min(1, e^{up_t + down_t}), where

        up_t = F_t(x) - F_{t+1}(x),     down_t = F_{t+1}(y) - F_t(y),

    x and y are the z2 of replica t and of replica t + 1, and F_t is the free energy of z2 with z1,
    which is drawn next in any case, summed out: in equilibrium this accepts at least as many swaps
    as energies would. Even and odd pairs take turns from sweep to sweep, so that states travel
    along the ladder instead of diffusing (Syed, Bouchard-Cote, Deligiannidis and Doucet,
    "Non-Reversible Parallel Tempering: a Scalable Highly Parallel MCMC Scheme" (2022)). The laws
    p_t stay invariant, up to the resolution of `gibbs.draw`. No gradient flows.

    Over all sweeps and chains the replicas also give (Meng and Wong, "Simulating Ratios of
    Normalizing Constants via a Simple Identity" (1996), the geometric bridge)

        log Z ~ log Z_1 + sum_t log mean e^{up_t / 2} - log mean e^{down_t / 2}.

    It is consistent for replicas in equilibrium. With finitely many it is biased, by about half the
    difference of the two logs' variances, so neither a bound from below nor from above; right after
    `init` it is wrong, and on a persistent state it lags behind the parameters. A metric for
    training; for a number with an error use `ais.log_z`.

    Args:
        key: typed PRNG key.
        params: RBM.
        state: TemperingState of any number of chains.
        num_sweeps: at least 1; static.

    Returns:
        TemperingState and TemperingInfo; NaN, as in `gibbs.step`, where a parameter or a bit is.

    Raises:
        ValueError: if num_sweeps < 1, the sizes of parameters and state do not fit, or there is no
            chain.
    """
    check_key(key)
    params = check_rbm(params)
    num_sweeps = check_count("num_sweeps", num_sweeps)
    _check_state(params, state)
    replicas = {name: as_float(getattr(state, name)) for name in ("replicas1", "replicas2")}
    return _step(key, params, jax.tree.map(jnp.asarray, state)._replace(**replicas), num_sweeps)


@functools.partial(jax.jit, static_argnums=3)
def _step(
    key: jax.Array, params: RBM, state: TemperingState, num_sweeps: int
) -> tuple[TemperingState, TemperingInfo]:
    specs = jax.tree.map(spec_of, state), PartitionSpec()
    return partition(functools.partial(_sweeps, num_sweeps), specs, key, params, state)


def _sweeps(
    num_sweeps: int, key: jax.Array, params: RBM, state: TemperingState
) -> tuple[TemperingState, TemperingInfo]:
    params, state = jax.lax.stop_gradient((params, state))
    base = centered_biases(params)
    dtype = base[0].dtype
    biases = [upcast(bias).astype(dtype) for bias in params[:2]]
    betas = state.betas.astype(dtype)
    # Transposed once: CPUs have no fast bfloat16 product with a transposed operand.
    transposed = jax.lax.optimization_barrier(params.weights.T)

    def sweep(i: jax.Array, carry: tuple) -> tuple[TemperingState, _Totals]:
        before, totals = carry
        key_swap, key_1, key_2 = jax.random.split(jax.random.fold_in(key, i), 3)
        fields = product(before.replicas2, transposed)  # W z2
        up, down = log_weights(betas, base[0], biases[0], fields)
        acceptance = jnp.exp(jnp.minimum(up + down, 0.0))  # the minimum keeps e^x from overflow
        totals = _Totals(
            totals.accepted + acceptance,
            jnp.logaddexp(totals.log_up, up / 2),
            jnp.logaddexp(totals.log_down, down / 2),
        )
        # Of z2 the fields are all that the draws below depend on.
        fields = exchange(swaps(key_swap, acceptance, before.parity), fields)
        z1 = draw(key_1, logits(betas, base[0], biases[0], fields)).astype(state.replicas1.dtype)
        fields = product(z1, params.weights)  # W^T z1
        z2 = draw(key_2, logits(betas, base[1], biases[1], fields)).astype(state.replicas2.dtype)
        return TemperingState(z1, z2, before.betas, 1 - before.parity), totals

    num_chains, num_temperatures = state.replicas1.shape[:2]
    zeros = jnp.zeros((num_chains, num_temperatures - 1), dtype)
    totals = _Totals(zeros, zeros - jnp.inf, zeros - jnp.inf)
    replicas1, replicas2, totals = vary_like((*state[:2], totals), key, params, state)
    start = state._replace(replicas1=replicas1, replicas2=replicas2), totals
    after, totals = jax.lax.fori_loop(0, num_sweeps, sweep, start)

    log_ratios = jax.nn.logsumexp(totals.log_up, 0) - jax.nn.logsumexp(totals.log_down, 0)
    return after, TemperingInfo(
        swap_rates=jnp.mean(totals.accepted, 0) / num_sweeps,
        flips=flip_rate((state.z1, state.z2), (after.z1, after.z2)),
        log_z=sum(jax.nn.softplus(c).sum() for c in base) + log_ratios.sum(),
    )


def adapt(
    state: TemperingState, swap_rates: jax.Array, *, rate: float | jax.Array = 0.5
) -> TemperingState:
    """Moves the ladder toward equal rejection rates.

    With L(b) the rejection rates 1 - swap_rates summed up to b, linear between the temperatures, a
    ladder with L at equal steps rejects equally often everywhere, which makes the most of T
    replicas (Syed et al. (2022) call L the communication barrier). Of the new ladder, the
    share `rate` is that one, the rest the old one.

    New temperatures change the laws of all replicas but the last, which then take a few sweeps to
    settle. So adapt during a burn-in, every some tens of sweeps, and drop those samples and
    estimates of log Z; or in training, where the machine moves anyway, at a small rate.

    Args:
        state: TemperingState.
        swap_rates: [T - 1] in [0, 1], as `step` reports them, of many chains or sweeps.
        rate: in (0, 1].

    Returns:
        TemperingState of the same replicas; betas still increase from exactly 0 to exactly 1.

    Raises:
        ValueError: if the sizes do not fit, or rate is outside (0, 1].
    """
    num_temperatures = np.shape(state.betas)[0]
    if np.shape(swap_rates) != (num_temperatures - 1,):
        raise ValueError(
            f"swap_rates must be [{num_temperatures - 1}], one for each pair of neighbors, got "
            f"shape {np.shape(swap_rates)}"
        )
    if isinstance(rate, int | float | np.number) and not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1, got {rate}")
    betas = jax.lax.stop_gradient(jnp.asarray(state.betas))
    swap_rates = jax.lax.stop_gradient(jnp.asarray(swap_rates, jnp.float32))
    # The last term keeps L from being zero throughout, 0 / 0 where nothing is rejected.
    rejected = 1 - swap_rates + 1e-6 * jnp.diff(betas)
    barrier = jnp.pad(jnp.cumsum(rejected), (1, 0))
    uniform = jnp.linspace(0.0, 1.0, num_temperatures, dtype=jnp.float32)
    equalized = jnp.interp(uniform * barrier[-1], barrier, betas)
    # A jump of L would draw temperatures together until rounding makes them equal.
    equalized = (1 - _UNIFORM_SHARE) * equalized + _UNIFORM_SHARE * uniform
    ladder = ((1 - rate) * betas + rate * equalized).astype(betas.dtype)
    return state._replace(betas=ladder.at[0].set(0.0).at[-1].set(1.0))


def _check_state(params: RBM, state: TemperingState) -> None:
    """Raises ValueError unless the state is one of chains of this machine."""
    check_chains(params.weights.shape, state.replicas1, state.replicas2)
    shapes = [np.shape(x) for x in state[:3]]
    if len(shapes[0]) != 3 or shapes[2] != shapes[0][1:2]:
        raise ValueError(
            "replicas1 [chains, T, n1], replicas2 [chains, T, n2] and betas [T] do not fit each "
            f"other: shapes {shapes[0]}, {shapes[1]}, {shapes[2]}"
        )
