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
the mode near z = 1 stays unknown.

Swendsen and Wang, "Replica Monte Carlo Simulation of Spin-Glasses" (1986); Desjardins, Courville,
Bengio, Vincent and Delalleau, "Tempered Markov Chain Monte Carlo for Training of Restricted
Boltzmann Machines" (2010).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import open_uniform
from dvae.rbm.energy import RBM, centered_biases, check
from dvae.rbm.gibbs import draw

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
    """Sums over sweeps, of each chain and pair: float32 [chains, T - 1]."""

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
    check(params)
    if num_chains < 1:
        raise ValueError(f"num_chains must be at least 1, got {num_chains}")
    if num_temperatures < 2:
        raise ValueError(
            f"num_temperatures must be at least 2 (gibbs needs one), got {num_temperatures}"
        )
    if betas is None:
        betas = np.linspace(0.0, 1.0, num_temperatures)
    _check_ladder(betas)
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
        num_sweeps: at least 1.

    Returns:
        TemperingState and TemperingInfo.

    Raises:
        ValueError: if num_sweeps < 1, or the sizes of parameters and state do not fit.
    """
    check(params)
    if num_sweeps < 1:
        raise ValueError(f"num_sweeps must be at least 1, got {num_sweeps}")
    _check_state(params, state)
    params, state = jax.lax.stop_gradient((params, state))
    base = centered_biases(params)
    # Transposed once: CPUs have no fast bfloat16 product with a transposed operand.
    transposed = jax.lax.optimization_barrier(params.weights.T)

    def sweep(i: jax.Array, carry: tuple) -> tuple[TemperingState, _Totals]:
        before, totals = carry
        key_swap, key_1, key_2 = jax.random.split(jax.random.fold_in(key, i), 3)
        betas, dtype = before.betas, before.replicas1.dtype
        fields = _matmul(before.replicas2, transposed)  # W z2
        up, down = _log_weights(betas, base[0], params.bias1, fields)
        acceptance = jnp.exp(jnp.minimum(up + down, 0.0))  # the minimum keeps e^x from overflow
        totals = _Totals(
            totals.accepted + acceptance,
            jnp.logaddexp(totals.log_up, up / 2),
            jnp.logaddexp(totals.log_down, down / 2),
        )
        # Of z2 the fields are all that the draws below depend on.
        fields = _exchange(_swaps(key_swap, acceptance, before.parity), fields)
        z1 = draw(key_1, _logits(betas, base[0], params.bias1, fields)).astype(dtype)
        fields = _matmul(z1, params.weights)  # W^T z1
        z2 = draw(key_2, _logits(betas, base[1], params.bias2, fields)).astype(dtype)
        return TemperingState(z1, z2, betas, 1 - before.parity), totals

    num_chains, num_temperatures = state.replicas1.shape[:2]
    zeros = jnp.zeros((num_chains, num_temperatures - 1), jnp.float32)
    start = (state, _Totals(zeros, zeros - jnp.inf, zeros - jnp.inf))
    after, totals = jax.lax.fori_loop(0, num_sweeps, sweep, start)

    changed = jnp.sum(after.z1 != state.z1) + jnp.sum(after.z2 != state.z2)
    log_ratios = jax.nn.logsumexp(totals.log_up, 0) - jax.nn.logsumexp(totals.log_down, 0)
    return after, TemperingInfo(
        swap_rates=jnp.mean(totals.accepted, 0) / num_sweeps,
        flips=changed / (state.z1.size + state.z2.size),
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
    num_temperatures = state.betas.shape[0]
    if swap_rates.shape != (num_temperatures - 1,):
        raise ValueError(
            f"swap_rates must be [{num_temperatures - 1}], one for each pair of neighbors, got "
            f"shape {swap_rates.shape}"
        )
    if isinstance(rate, int | float | np.number) and not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1, got {rate}")
    betas, swap_rates = jax.lax.stop_gradient((state.betas, swap_rates))
    # The last term keeps L from being zero throughout, 0 / 0 where nothing is rejected.
    rejected = 1 - swap_rates.astype(jnp.float32) + 1e-6 * jnp.diff(betas)
    barrier = jnp.pad(jnp.cumsum(rejected), (1, 0))
    uniform = jnp.linspace(0.0, 1.0, num_temperatures, dtype=jnp.float32)
    equalized = jnp.interp(uniform * barrier[-1], barrier, betas)
    # A jump of L would draw temperatures together until rounding makes them equal.
    equalized = (1 - _UNIFORM_SHARE) * equalized + _UNIFORM_SHARE * uniform
    ladder = (1 - rate) * betas + rate * equalized
    return state._replace(betas=ladder.at[0].set(0.0).at[-1].set(1.0))


def _matmul(z: jax.Array, weights: jax.Array) -> jax.Array:
    """Multiplies bits [chains, T, n] by weights, with sums in float32."""
    return jnp.matmul(z, weights, preferred_element_type=jnp.float32)


def _logits(betas: jax.Array, base: jax.Array, bias: jax.Array, fields: jax.Array) -> jax.Array:
    """Evaluates the logits of one side given the other, [chains, T, n], T those of betas [T]."""
    b = betas[None, :, None]
    return (1 - b) * base[None, None] + b * (bias[None, None] + fields)


def _log_weights(
    betas: jax.Array, base: jax.Array, bias: jax.Array, fields: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Evaluates `up` and `down`, [chains, T - 1], from the fields W z2 of all replicas."""

    def minus_free_energy(betas: jax.Array, fields: jax.Array) -> jax.Array:
        # Less c2.z2, common to all b; of b (a2 - c2).z2 there remains -b sum (W z2) / 2.
        softplus = jax.nn.softplus(_logits(betas, base, bias, fields))
        return jnp.sum(softplus - betas[None, :, None] * fields / 2, axis=-1)

    own = minus_free_energy(betas, fields)
    up = minus_free_energy(betas[1:], fields[:, :-1]) - own[:, :-1]
    down = minus_free_energy(betas[:-1], fields[:, 1:]) - own[:, 1:]
    return up, down


def _swaps(key: jax.Array, acceptance: jax.Array, parity: jax.Array) -> jax.Array:
    """Decides which pairs swap, bool [chains, T - 1]; only those of one parity may."""
    num_chains, num_pairs = acceptance.shape
    noise = open_uniform(key, (num_chains, (num_pairs + 1) // 2))
    noise = jnp.repeat(noise, 2, axis=1)[:, :num_pairs]  # pairs 2k and 2k + 1 never compete
    active = jnp.arange(num_pairs) % 2 == parity
    return (noise < acceptance) & active[None]


def _exchange(swaps: jax.Array, x: jax.Array) -> jax.Array:
    """Exchanges the entries t and t + 1 of x [chains, T, n] where swaps [chains, t] says so."""
    with_next = jnp.pad(swaps, ((0, 0), (0, 1)))[..., None]
    with_last = jnp.pad(swaps, ((0, 0), (1, 0)))[..., None]
    x_next, x_last = jnp.roll(x, -1, axis=1), jnp.roll(x, 1, axis=1)
    return jnp.where(with_next, x_next, jnp.where(with_last, x_last, x))


def _check_ladder(betas: jax.typing.ArrayLike) -> None:
    """Raises ValueError unless betas increase from 0 to 1; of traced ones only the shape counts."""
    shape = np.shape(betas)
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(f"betas must be [T] with at least 2 temperatures, got shape {shape}")
    if isinstance(betas, jax.core.Tracer):
        return
    ladder = np.asarray(betas, np.float32)
    if not (ladder[0] == 0 and ladder[-1] == 1 and np.all(np.diff(ladder) > 0)):
        raise ValueError(f"betas must increase strictly from 0 to 1, got {ladder.tolist()}")


def _check_state(params: RBM, state: TemperingState) -> None:
    """Raises ValueError unless the state is one of chains of this machine."""
    sizes = state.replicas1.shape[-1], state.replicas2.shape[-1]
    if sizes != params.weights.shape:
        raise ValueError(
            f"the state has {sizes[0]} and {sizes[1]} units, the RBM {params.weights.shape[0]} and "
            f"{params.weights.shape[1]}: start chains with init for this machine"
        )
    shape = state.replicas1.shape[:-1]
    if len(shape) != 2 or state.replicas2.shape[:-1] != shape or state.betas.shape != shape[1:]:
        raise ValueError(
            "replicas1 [chains, T, n1], replicas2 [chains, T, n2] and betas [T] do not fit each "
            f"other: shapes {state.replicas1.shape}, {state.replicas2.shape}, {state.betas.shape}"
        )
