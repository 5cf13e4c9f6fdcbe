"""The interface of a smoothing, for type checkers."""

from typing import Protocol

import jax

from dvae._numerics import ArrayLike


class Smoothing(Protocol):
    """The functions of a module of `SMOOTHINGS`, which are documented there.

    `spike_exp` has `icdf`, `sample` and `cdf` only; `uniform_exp` takes `eps` as well.
    """

    def icdf(self, rho: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array: ...

    def sample(self, key: jax.Array, logits: ArrayLike, beta: ArrayLike) -> jax.Array: ...

    def ancestral_sample(self, key: jax.Array, logits: ArrayLike, beta: ArrayLike) -> jax.Array: ...

    def cdf(self, zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array: ...

    def log_prob(self, zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array: ...

    def log_prob_0(self, zeta: ArrayLike, beta: ArrayLike) -> jax.Array: ...

    def log_ratio(self, zeta: ArrayLike, beta: ArrayLike) -> jax.Array: ...

    def posterior_logits(
        self, zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike
    ) -> jax.Array: ...
