"""What the smoothings share: a mixture of two mirrored densities, its inverse CDF and its gradient.

Each smoothing gives r(zeta|z) with r(zeta|1) = r(1 - zeta|0), and the mixture

    F(zeta) = (1-q) R_0(zeta) + q R_1(zeta),  f(zeta) = (1-q) r_0(zeta) + q r_1(zeta),

q = sigmoid(l). The mirror rho, l, zeta -> 1 - rho, -l, 1 - zeta maps F to itself, so only roots
w <= 1/2 are computed; near one the same digits are then kept in 1 - zeta.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae._numerics import (
    check_positive,
    check_unit,
    mark_nan,
    meet,
    open_uniform,
    same_rank,
    sigmoid,
    widen,
)
from dvae.relax._implicit import Slopes, Target, attach, gap, tails

ArrayLike = jax.typing.ArrayLike
Pair = tuple[jax.Array, jax.Array]
Function = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One smoothing family; the methods are the public functions of its module.

    All methods are elementwise, broadcast their arguments and keep the dtype of rho, zeta and
    logits (beta follows them). Fields take arrays of one rank in at least float32.
    """

    # (zeta, beta) -> R_0, R_1.
    cdfs: Callable[[jax.Array, jax.Array], Pair]
    # (zeta, beta) -> log r_0, log r_1.
    log_probs: Callable[[jax.Array, jax.Array], Pair]
    # (zeta, beta) -> log r_1 - log r_0.
    ratio: Function
    # (u, beta) -> R_0^-1(u).
    quantile_0: Function
    # The root w of F(w) = rho.
    root: Callable[[Target, jax.Array], jax.Array]
    # (w, logits, beta, min_density) -> 1 / f, q (1-q) (R_0 - R_1), -dF/dbeta at w <= 1/2.
    slopes: Slopes
    # Whether zeta lies in [0, 1], or anywhere on the line.
    bounded: bool = True

    def icdf(self, rho: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
        """Maps uniform noise to zeta = F^{-1}(rho), differentiable in all three arguments.

        Args:
            rho: [...] float in [0, 1]; what is closer than 1e-17 to 0 counts as that close, and so
                does 1. At 0 and 1 zeta is exactly the end of a bounded support.
            logits: [...] float; q = sigmoid(l).
            beta: [...] float > 0, the inverse temperature.

        Returns:
            [...] zeta, increasing in rho and (for beta > 1) in the logits; NaN where an argument
            is NaN or rho is outside [0, 1].

        Raises:
            ValueError: if beta is a Python number and not positive and finite, or rho is one
                outside [0, 1].
        """
        check_unit("rho", rho)
        (rho, logits), beta, dtype = prepare((rho, logits), beta)
        return self._solve(rho, logits, beta).astype(dtype)

    def sample(self, key: jax.Array, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
        """Draws zeta = F^{-1}(rho) with rho uniform, reparametrised.

        Args:
            key: typed PRNG key.
            logits: [...] float.
            beta: float > 0, the inverse temperature; broadcasts with logits.

        Returns:
            [...] zeta, in the dtype of logits.

        Raises:
            ValueError: if beta is a Python number and not positive and finite, or key is an array
                of keys.
        """
        (logits,), beta, dtype = prepare((logits,), beta)
        rho = uniform_like(key, logits, beta)
        return self._solve(rho, logits, beta).astype(dtype)

    def ancestral_sample(self, key: jax.Array, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
        """Draws z ~ Bernoulli(q), then zeta ~ r(zeta|z): the sampler of DVAE#.

        The law is that of `sample`, and so is the gradient at a given zeta, since it depends on
        zeta alone: dzeta/dl = q (1-q) (R_0 - R_1) / f, Vahdat et al. (2018), DVAE#. No root is
        computed.

        Args:
            key: typed PRNG key.
            logits: [...] float.
            beta: float > 0, the inverse temperature; broadcasts with logits.

        Returns:
            [...] zeta, in the dtype of logits.

        Raises:
            ValueError: if beta is a Python number and not positive and finite, or key is an array
                of keys.
        """
        (logits,), beta, dtype = prepare((logits,), beta)
        key_z, key_zeta = jax.random.split(key)
        z = uniform_like(key_z, logits, beta) < jax.nn.sigmoid(logits)
        # `ndtri` takes no sharded noise on a mesh with explicit axes.
        u = open_uniform(key_zeta, z.shape).astype(logits.dtype)
        zeta = meet(self.quantile_0(u, jax.lax.stop_gradient(beta)), logits, beta)
        logits = meet(logits, zeta)
        inner = zeta <= 0.5  # zeta is on the side of its z
        w = jnp.where(inner, zeta, 1 - zeta)
        lower = inner ^ z
        mirrored = jnp.where(lower, logits, -logits)
        w = attach(self.slopes, w, jnp.zeros_like(w), mirrored, beta, jnp.zeros_like(w))
        return mark_nan(jnp.where(lower, w, 1 - w), logits).astype(dtype)

    def cdf(self, zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
        """Evaluates F(zeta) = (1-q) R_0(zeta) + q R_1(zeta).

        Args:
            zeta: [...] float.
            logits: [...] float.
            beta: float > 0; broadcasts.

        Returns:
            [...] in [0, 1].

        Raises:
            ValueError: if beta is a Python number and not positive and finite.
        """
        (zeta, logits), beta, dtype = prepare((zeta, logits), beta)
        r0, r1 = self.cdfs(jnp.clip(zeta, 0, 1) if self.bounded else zeta, beta)
        return (sigmoid(-logits) * r0 + sigmoid(logits) * r1).astype(dtype)

    def log_prob(self, zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
        """Evaluates the log-density log f(zeta) of the mixture; -inf outside the support.

        Args:
            zeta: [...] float.
            logits: [...] float.
            beta: float > 0; broadcasts.

        Returns:
            [...] nats.

        Raises:
            ValueError: if beta is a Python number and not positive and finite.
        """
        (zeta, logits), beta, dtype = prepare((zeta, logits), beta)
        log_0, log_1 = self.log_probs(jnp.clip(zeta, 0, 1) if self.bounded else zeta, beta)
        value = jnp.logaddexp(log_0 - jax.nn.softplus(logits), log_1 - jax.nn.softplus(-logits))
        return self._inside(zeta, value).astype(dtype)

    def log_prob_0(self, zeta: ArrayLike, beta: ArrayLike) -> jax.Array:
        """Evaluates log r(zeta|z=0); log r(zeta|1) is its value at 1 - zeta.

        Args:
            zeta: [...] float.
            beta: float > 0; broadcasts.

        Returns:
            [...] nats; -inf outside the support.

        Raises:
            ValueError: if beta is a Python number and not positive and finite.
        """
        (zeta,), beta, dtype = prepare((zeta,), beta)
        value, _ = self.log_probs(jnp.clip(zeta, 0, 1) if self.bounded else zeta, beta)
        return self._inside(zeta, value).astype(dtype)

    def log_ratio(self, zeta: ArrayLike, beta: ArrayLike) -> jax.Array:
        """Evaluates log r(zeta|1) - log r(zeta|0).

        Args:
            zeta: [...] float, in the support.
            beta: float > 0; broadcasts.

        Returns:
            [...] nats.

        Raises:
            ValueError: if beta is a Python number and not positive and finite.
        """
        (zeta,), beta, dtype = prepare((zeta,), beta)
        return self.ratio(zeta, beta).astype(dtype)

    def posterior_logits(self, zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
        """Evaluates the logit of q(z=1|x, zeta): l + log r(zeta|1) - log r(zeta|0).

        Vahdat et al. (2018), DVAE++, section 5, where its sigmoid is called nu.

        Args:
            zeta: [...] float, in the support.
            logits: [...] float.
            beta: float > 0; broadcasts.

        Returns:
            [...] logits.

        Raises:
            ValueError: if beta is a Python number and not positive and finite.
        """
        (zeta, logits), beta, dtype = prepare((zeta, logits), beta)
        return (logits + self.ratio(zeta, beta)).astype(dtype)

    def _inside(self, zeta: jax.Array, value: jax.Array) -> jax.Array:
        """Returns value on the support, -inf elsewhere."""
        if not self.bounded:
            return value
        outside, value = jnp.broadcast_arrays((zeta < 0) | (zeta > 1), value)
        return jnp.where(outside, -jnp.inf, value)

    def _solve(self, rho: jax.Array, logits: jax.Array, beta: jax.Array) -> jax.Array:
        """Returns F^{-1}(rho) with its derivatives."""
        rho, logits = meet(rho, logits, beta), meet(logits, rho, beta)
        low, high = tails(rho)
        p, q = jax.nn.sigmoid(-logits), jax.nn.sigmoid(logits)
        above_p, above_q = gap(low, high, p, q), gap(low, high, q, p)
        _, r1 = self.cdfs(jnp.full((1,) * beta.ndim, 0.5, beta.dtype), beta)
        lower = (above_p <= (q - p) * r1) & (rho != 1) | (rho == 0)
        target = Target(
            rho=jnp.where(lower, low, high),
            rest=jnp.where(lower, high, low),
            p=jnp.where(lower, p, q),
            q=jnp.where(lower, q, p),
            above_p=jnp.where(lower, above_p, -above_p),
            above_q=jnp.where(lower, above_q, -above_q),
        )
        w = self.root(*jax.lax.stop_gradient((target, beta)))
        if self.bounded:
            w = jnp.where((rho == 0) | (rho == 1), 0, w)
        min_density = jnp.where(w > 0, 0.5 * jnp.finfo(w.dtype).eps * low, 0)
        signed = jnp.where(lower, rho, -rho), jnp.where(lower, logits, -logits)
        w = attach(self.slopes, w, *signed, beta, min_density)
        return jnp.where(lower, w, 1 - w)


def prepare(
    arrays: tuple[ArrayLike, ...], beta: ArrayLike
) -> tuple[list[jax.Array], jax.Array, jnp.dtype]:
    """Checks beta, and returns everything wide and of one rank, with the dtype of the result."""
    check_positive("beta", beta)
    wide, dtype = widen(*arrays)
    *wide, beta = same_rank(*wide, jnp.asarray(beta, wide[0].dtype))
    return wide, beta, dtype


def uniform_like(key: jax.Array, *xs: jax.Array) -> jax.Array:
    """Draws uniforms strictly inside (0, 1), one for each element of the arrays, broadcast."""
    u = open_uniform(key, jnp.broadcast_shapes(*(x.shape for x in xs)))
    return meet(u.astype(xs[0].dtype), *xs)
