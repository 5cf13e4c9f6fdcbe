"""What the smoothings share: a mixture of two mirrored densities, its inverse CDF and its gradient.

Each smoothing gives r(zeta|z) with r(zeta|1) = r(1 - zeta|0), and the mixture

    F(zeta) = (1-q) R_0(zeta) + q R_1(zeta),  f(zeta) = (1-q) r_0(zeta) + q r_1(zeta),

q = sigmoid(l). The mirror rho, l, zeta -> 1 - rho, -l, 1 - zeta maps F to itself, so only roots
w <= 1/2 are computed; near one the same digits are then kept in 1 - zeta. The gradient of a root
is that of the implicit function, never that of the solver:

    dzeta/drho = 1/f,  dzeta/dl = q (1-q) (R_0 - R_1) / f,  dzeta/dbeta = -(dF/dbeta) / f.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import check_open_unit, check_positive, open_uniform, same_rank, upcast

ArrayLike = jax.typing.ArrayLike
Pair = tuple[jax.Array, jax.Array]
Function = Callable[[jax.Array, jax.Array], jax.Array]

# Between sharp modes the density underflows; the floor keeps the slope 1 / f of the cliff finite.
MIN_DENSITY = 1e-30


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
    # (rho, logits, beta) -> the root w of F(w) = rho, valid where w <= 1/2.
    root: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    # (w, logits, beta) -> 1 / f, q (1-q) (R_0 - R_1), -dF/dbeta at w <= 1/2.
    slopes: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
    # Whether zeta lies in [0, 1], or anywhere on the line.
    bounded: bool = True

    def icdf(self, rho: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
        """Maps uniform noise to zeta = F^{-1}(rho), differentiable in all three arguments.

        Args:
            rho: [...] float in (0, 1).
            logits: [...] float; q = sigmoid(l).
            beta: [...] float > 0, the inverse temperature.

        Returns:
            [...] zeta, increasing in rho and (for beta > 1) in the logits.

        Raises:
            ValueError: if beta is a Python number and not positive, or rho is one outside (0, 1).
        """
        check_open_unit("rho", rho)
        (rho, logits), beta, dtype = prepare((rho, logits), beta)
        half = jnp.asarray(0.5, beta.dtype)
        r0, r1 = self.cdfs(half.reshape((1,) * beta.ndim), beta)
        q, other = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
        lower = jax.lax.stop_gradient(rho <= other * r0 + q * r1)
        rho, logits = jnp.where(lower, rho, 1 - rho), jnp.where(lower, logits, -logits)
        w = self.root(*jax.lax.stop_gradient((rho, logits, beta)))
        w = _attach(self, w, rho, logits, beta)
        return jnp.where(lower, w, 1 - w).astype(dtype)

    def sample(self, key: jax.Array, logits: jax.Array, beta: ArrayLike) -> jax.Array:
        """Draws zeta = F^{-1}(rho) with rho uniform, reparametrised (see `icdf`).

        Args:
            key: typed PRNG key.
            logits: [...] float.
            beta: float > 0, the inverse temperature; broadcasts with logits.

        Returns:
            [...] zeta, in the dtype of logits.

        Raises:
            ValueError: if beta is a Python number and not positive.
        """
        shape = jnp.broadcast_shapes(logits.shape, jnp.shape(beta))
        return self.icdf(open_uniform(key, shape), logits, beta).astype(logits.dtype)

    def ancestral_sample(self, key: jax.Array, logits: jax.Array, beta: ArrayLike) -> jax.Array:
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
            ValueError: if beta is a Python number and not positive.
        """
        shape = jnp.broadcast_shapes(logits.shape, jnp.shape(beta))
        (wide,), beta, dtype = prepare((logits,), beta)
        key_z, key_zeta = jax.random.split(key)
        z = open_uniform(key_z, shape) < jax.nn.sigmoid(wide)
        zeta = self.quantile_0(open_uniform(key_zeta, shape), jax.lax.stop_gradient(beta))
        inner = zeta <= 0.5  # zeta is on the side of its z
        w = jnp.where(inner, zeta, 1 - zeta)
        lower = jax.lax.stop_gradient(inner ^ z)
        w = _attach(self, w, jnp.zeros_like(w), jnp.where(lower, wide, -wide), beta)
        return jnp.where(lower, w, 1 - w).astype(dtype)

    def cdf(self, zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
        """Evaluates F(zeta) = (1-q) R_0(zeta) + q R_1(zeta).

        Args:
            zeta: [...] float.
            logits: [...] float.
            beta: float > 0; broadcasts.

        Returns:
            [...] in [0, 1].

        Raises:
            ValueError: if beta is a Python number and not positive.
        """
        (zeta, logits), beta, dtype = prepare((zeta, logits), beta)
        r0, r1 = self.cdfs(jnp.clip(zeta, 0, 1) if self.bounded else zeta, beta)
        return (jax.nn.sigmoid(-logits) * r0 + jax.nn.sigmoid(logits) * r1).astype(dtype)

    def log_prob(self, zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
        """Evaluates the log-density log f(zeta) of the mixture; -inf outside the support.

        Args:
            zeta: [...] float.
            logits: [...] float.
            beta: float > 0; broadcasts.

        Returns:
            [...] nats.

        Raises:
            ValueError: if beta is a Python number and not positive.
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
            ValueError: if beta is a Python number and not positive.
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
            ValueError: if beta is a Python number and not positive.
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
            ValueError: if beta is a Python number and not positive.
        """
        (zeta, logits), beta, dtype = prepare((zeta, logits), beta)
        return (logits + self.ratio(zeta, beta)).astype(dtype)

    def _inside(self, zeta: jax.Array, value: jax.Array) -> jax.Array:
        """Returns value on the support, -inf elsewhere."""
        return jnp.where((zeta >= 0) & (zeta <= 1), value, -jnp.inf) if self.bounded else value


def prepare(
    arrays: tuple[ArrayLike, ...], beta: ArrayLike
) -> tuple[list[jax.Array], jax.Array, jnp.dtype]:
    """Checks beta, and returns everything wide and of one rank, with the dtype of the result."""
    check_positive("beta", beta)
    dtype = jnp.result_type(*arrays)
    wide = [upcast(jnp.asarray(x, dtype)) for x in arrays]
    *wide, beta = same_rank(*wide, jnp.asarray(beta, wide[0].dtype))
    return wide, beta, dtype


def _attach(
    mixture: Mixture, w: jax.Array, rho: jax.Array, logits: jax.Array, beta: jax.Array
) -> jax.Array:
    """Returns the root w with the derivatives of the implicit function F(w; l, beta) = rho."""

    @jax.custom_jvp
    def attached(w: jax.Array, rho: jax.Array, logits: jax.Array, beta: jax.Array) -> jax.Array:
        return w

    def rule(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
        w = attached(*primals)
        slope, by_logits, by_beta = mixture.slopes(w, *primals[2:])
        total = jnp.zeros_like(w)
        factors = (slope, slope * by_logits, slope * by_beta)
        for factor, tangent in zip(factors, tangents[1:], strict=True):
            # A constant beta or rho costs nothing.
            if not isinstance(tangent, jax.custom_derivatives.SymbolicZero):
                total = total + factor * tangent
        return w, total

    attached.defjvp(rule, symbolic_zeros=True)
    return attached(w, rho, logits, beta)


def inverse_density(f: jax.Array) -> jax.Array:
    """Returns 1 / f, at most 1e30: the cliff between two sharp modes has density zero."""
    return 1 / jnp.maximum(f, np.float32(MIN_DENSITY))
