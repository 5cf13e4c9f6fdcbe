"""RELAX: the score function with a control variate on a continuous relaxation of the bits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae.estimators._estimate import Estimate, as_logits, evaluate, logits_term, with_term
from dvae.estimators._relaxed import RelaxedDraw, control_gradient, draw_relaxed, score_gradient

__all__ = ["relax", "relax_variance"]


def relax(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    control_variate: Callable[[jax.Array], jax.Array],
) -> Estimate:
    """Estimates the gradient of E_q[f(b)] with a free-form control variate c.

    The relaxed bits are z = l + logit(u), of which b = 1[z > 0] is the exact sample, and z'
    drawn given b. The gradient in the logits is

        (f(b) - c(z')) grad log q(b) + grad_l c(z) - grad_l c(z') + grad f(b),

    unbiased for every differentiable c that does not depend on the noise. Only z and z' carry the
    logits into c: its parameters, and the logits it closes over, receive no gradient here; train
    them with `relax_variance`. Grathwohl et al., "Backpropagation through the Void: Optimizing
    control variates for black-box gradient estimation" (2018), section 3.2. `rebar` is the case
    c(z) = eta f(sigmoid(z / t)), and the published control variate adds a network to it:

        def control_variate(z):
            return eta * f(jax.nn.sigmoid(z / temperature)) + network(control_params, z)

    Args:
        key: typed PRNG key.
        f: maps b [..., n] to [...], nats; called once. It may close over parameters and over
            logits, which receive its gradient.
        logits: [..., n] float.
        control_variate: c, maps unbounded z [..., n] to [...], nats, floats; traced once, and
            mapped over the pair z, z'.

    Returns:
        Estimate of f(b), both [...], in the dtype that f returns (integers: the default
        float).

    Raises:
        ValueError: if f or control_variate does not reduce z to one value for each example, or
            control_variate returns integers.
    """
    logits = as_logits("relax", logits)
    draw = draw_relaxed(key, logits)
    values = evaluate("relax", f, draw.bits, logits.shape[:-1])
    gradient = score_gradient(values, draw) + _control("relax", control_variate, draw)
    return with_term(values, logits_term(gradient, logits))


def relax_variance(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    control_variate: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Evaluates ||g||^2 for the g of `relax`, to be descended in the parameters of c.

    As the mean of g does not depend on c, the gradient of this single sample is an unbiased
    estimate of the gradient of g's variance (Grathwohl et al., 2018, section 3.1). g is the
    gradient in the logits without f's own dependence on them, as in `rebar_variance`.

    Args:
        key: the key given to `relax` (a `jax.random.clone` where key reuse is checked): the same
            draws, so that a compiler can share the evaluations.
        f: as in `relax`; receives no gradient.
        logits: [..., n] float; receive no gradient.
        control_variate: c, as in `relax`. All that it closes over receives the gradient: where it
            calls f, give it an f of `jax.lax.stop_gradient((params, logits))`.

    Returns:
        [...] the sum over units of g^2, nats^2, at least float32 (a square overflows float16).

    Raises:
        ValueError: if f or control_variate does not reduce z to one value for each example, or
            control_variate returns integers.
    """
    logits = as_logits("relax_variance", logits)
    draw = draw_relaxed(key, logits)
    values = evaluate("relax_variance", f, draw.bits, logits.shape[:-1])
    gradient = score_gradient(values, draw) + _control("relax_variance", control_variate, draw)
    return jnp.sum(gradient**2, axis=-1)


def _control(name: str, c: Callable[[jax.Array], jax.Array], draw: RelaxedDraw) -> jax.Array:
    """Evaluates `control_gradient` for a c that is given z in the dtype of the logits."""
    narrowed = lambda z: c(z.astype(draw.bits.dtype))
    return control_gradient(name, narrowed, draw, label="control_variate")
