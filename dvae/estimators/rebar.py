"""REBAR: the score function with f on relaxed bits as control variate, tuned to least variance."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae._numerics import check_positive, wide_dtype
from dvae.estimators._estimate import Estimate, as_logits, evaluate, logits_term, with_term
from dvae.estimators._relaxed import RelaxedDraw, control_gradient, draw_relaxed, score_gradient

__all__ = ["rebar", "rebar_variance"]


def rebar(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    temperature: jax.typing.ArrayLike,
    eta: jax.typing.ArrayLike,
) -> Estimate:
    """Estimates the gradient of E_q[f(b)] with eta f(sigmoid(z / t)) as control variate.

    The relaxed bits are z = l + logit(u), of which b = 1[z > 0] is the exact sample, and z'
    drawn given b. With c(z) = f(sigmoid(z / t)), the gradient in the logits is

        (f(b) - eta c(z')) grad log q(b) + eta (grad_l c(z) - grad_l c(z')) + grad f(b).

    Unbiased for every temperature and eta. The relaxed evaluations act on the logits through z and
    z' alone: parameters that f closes over, and f's own dependence on the logits, receive their
    gradient at the sample b. f must treat the examples of a batch apart. Tucker et al., "REBAR:
    Low-variance, unbiased gradient estimates for discrete latent variable models" (2017),
    section 3.

    Args:
        key: typed PRNG key.
        f: maps z [..., n] to [...], nats, floats, and is differentiable at z in [0, 1]^n; called at
            b, and traced once more and mapped over the two relaxed samples. It may close over
            parameters and over logits. With steps between the bits the estimate is biased.
        logits: [..., n] float.
        temperature: t > 0, scalar; receives no gradient here, see `rebar_variance`.
        eta: scalar, the weight of the control variate; likewise. At 0 this is `reinforce`.

    Returns:
        Estimate of f(b), both [...], in the dtype that f returns.

    Raises:
        ValueError: if temperature is a number and not positive, if temperature or eta is not a
            scalar, or if f returns integers or does not reduce z to one value for each example.
    """
    logits = as_logits("rebar", logits)
    temperature, eta = _scalars("rebar", temperature, eta, logits)
    draw = draw_relaxed(key, logits)
    values = evaluate("rebar", f, draw.bits, logits.shape[:-1])
    gradient = score_gradient(values, draw) + eta * _control("rebar", f, draw, temperature)
    return with_term(values, logits_term(gradient, logits))


def rebar_variance(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    temperature: jax.typing.ArrayLike,
    eta: jax.typing.ArrayLike,
) -> jax.Array:
    """Evaluates ||g||^2 for the g of `rebar`, to be descended in temperature and eta.

    The mean of g depends on neither, so the gradient of this single sample is an unbiased estimate
    of the gradient of g's variance (Tucker et al., 2017, section 3.2). Typical use, with the
    two learned as log t and eta at a step size of their own:

        estimate = rebar(key, f, logits, temperature=t, eta=eta)
        variance = rebar_variance(jax.random.clone(key), f, logits, temperature=t, eta=eta)
        loss = -jnp.mean(estimate.surrogate) + jnp.mean(variance)

    g is the gradient in the logits without f's own dependence on them, which f hides. To leave
    nothing out, move such terms out of f where they have a closed form: the entropy of q for
    E_q[-log q], whose gradient has no variance.

    Args:
        key: the key given to `rebar` (a clone where key reuse is checked): the same draws, so that
            a compiler can share the evaluations.
        f: as in `rebar`; receives no gradient.
        logits: [..., n] float; receive no gradient.
        temperature: t > 0, scalar; receives the gradient.
        eta: scalar; receives the gradient.

    Returns:
        [...] the sum over units of g^2, nats^2, at least float32 (a square overflows float16).

    Raises:
        ValueError: if temperature is a number and not positive, if temperature or eta is not a
            scalar, or if f returns integers or does not reduce z to one value for each example.
    """
    logits = as_logits("rebar_variance", logits)
    temperature, eta = _scalars("rebar_variance", temperature, eta, logits)
    draw = draw_relaxed(key, logits)
    values = evaluate("rebar_variance", f, draw.bits, logits.shape[:-1])

    # Forward mode reaches t alone: reverse mode would also enter what f closes over.
    fixed = jax.lax.stop_gradient((temperature, eta))
    control, control_by_t = jax.jvp(
        lambda t: _control("rebar_variance", f, draw, t),
        (fixed[0],),
        (jnp.ones_like(fixed[0]),),
    )
    gradient = score_gradient(values, draw) + fixed[1] * control
    value, by_t, by_eta = jax.lax.stop_gradient(
        (
            jnp.sum(gradient**2, axis=-1),
            jnp.sum(2 * gradient * fixed[1] * control_by_t, axis=-1),
            jnp.sum(2 * gradient * control, axis=-1),
        )
    )
    return value + by_t * (temperature - fixed[0]) + by_eta * (eta - fixed[1])


def _control(
    name: str, f: Callable[[jax.Array], jax.Array], draw: RelaxedDraw, temperature: jax.Array
) -> jax.Array:
    """Evaluates the control variate's gradient in the logits at eta = 1, [..., n]."""
    dtype = draw.bits.dtype
    c = lambda z: f(jax.nn.sigmoid(z / temperature).astype(dtype))
    return control_gradient(name, c, draw, label="f")


def _scalars(
    name: str,
    temperature: jax.typing.ArrayLike,
    eta: jax.typing.ArrayLike,
    logits: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns temperature and eta as scalars in the dtype of the relaxed bits."""
    check_positive("temperature", temperature)
    for argument, value in (("temperature", temperature), ("eta", eta)):
        if jnp.ndim(value) != 0:
            raise ValueError(
                f"{name} takes one {argument} for all units, a scalar, got shape {jnp.shape(value)}"
            )
    dtype = wide_dtype(logits)
    return jnp.asarray(temperature, dtype), jnp.asarray(eta, dtype)
