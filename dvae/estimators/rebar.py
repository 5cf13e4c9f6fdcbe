"""REBAR: the score function with f on relaxed bits as control variate, tuned to least variance."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae._checks import check_positive
from dvae._numerics import as_float, upcast, wide_dtype
from dvae.estimators._estimate import (
    Estimate,
    as_logits,
    centered,
    differentiable,
    evaluate,
    logits_term,
    with_term,
)
from dvae.estimators._relaxed import (
    RelaxedDraw,
    control_gradient,
    draw_relaxed,
    relaxed_bits,
    score_gradient,
)

__all__ = ["RebarGradients", "rebar", "rebar_gradients", "rebar_variance"]

PyTree = Any


def rebar(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    temperature: jax.typing.ArrayLike,
    eta: jax.typing.ArrayLike,
    baseline: jax.typing.ArrayLike | None = None,
    toward_mean: bool = False,
) -> Estimate:
    """Estimates the gradient of E_q[f(b)] with eta f(sigmoid(z / t)) as control variate.

    The relaxed bits are z = l + logit(u), of which b = 1[z > 0] is the exact sample, and z'
    drawn given b. With c(z) = f(sigmoid(z / t)), the gradient in the logits is

        (f(b) - C - eta c(z')) grad log q(b) + eta (grad_l c(z) - grad_l c(z')) + grad f(b),

    C a baseline. Unbiased for every temperature, eta and C that do not depend on the noise. With
    toward_mean c(z) = f(sigmoid((z + l t^2 / (t + 1)) / t)): as t grows it tends to f(sigmoid(l)),
    the baseline of MuProp, and not to f(1/2) (section 3.1).

    The relaxed evaluations act on the logits through z and z' alone: parameters that f closes over,
    and f's own dependence on the logits, receive their gradient at the sample b. f must treat
    the examples of a batch apart. Tucker et al., "REBAR: Low-variance, unbiased gradient
    estimates for discrete latent variable models" (2017), section 3.

    Args:
        key: typed PRNG key.
        f: maps z [..., n] to [...], nats, floats, and is differentiable at z in [0, 1]^n; called at
            b, and traced once more and mapped over the two relaxed samples. It may close over
            parameters and over logits. With steps between the bits the estimate is biased.
        logits: [..., n] float.
        temperature: t > 0, scalar; receives no gradient here, see `rebar_variance`.
        eta: scalar, the weight of the control variate; likewise. At 0 this is `reinforce`.
        baseline: C, a scalar or [...], nats; likewise. None: 0.
        toward_mean: relaxed bits tend to the mean as t grows, not to 1/2.

    Returns:
        Estimate of f(b), both [...], in the dtype that f returns.

    Raises:
        ValueError: if temperature is a number and not positive, if temperature or eta is not a
            scalar, if f returns integers or does not reduce z to one value for each example, or
            if the baseline is neither a scalar nor one value for each example.
    """
    logits = as_logits("rebar", logits)
    temperature, eta = _scalars("rebar", temperature, eta, logits)
    draw = draw_relaxed(key, logits)
    values = evaluate("rebar", f, draw.bits, logits.shape[:-1])
    signal = values if baseline is None else centered("rebar", values, baseline)
    control = _control("rebar", f, draw, temperature, logits if toward_mean else None)
    gradient = score_gradient(signal, draw) + eta * control
    return with_term(values, logits_term(gradient, logits))


def rebar_variance(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    temperature: jax.typing.ArrayLike,
    eta: jax.typing.ArrayLike,
    baseline: jax.typing.ArrayLike | None = None,
    toward_mean: bool = False,
) -> jax.Array:
    """Evaluates ||g||^2 for the g of `rebar`, to be descended in what tunes it.

    The mean of g depends on neither temperature nor eta, nor on the baseline, so the gradient
    of this single sample is an unbiased estimate of the gradient of g's variance (Tucker et
    al., 2017, section 3.2). Typical use, with the two learned as log t and eta at a step size
    of their own:

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
        baseline: as in `rebar`; receives the gradient.
        toward_mean: as in `rebar`.

    Returns:
        [...] the sum over units of g^2, nats^2, at least float32 (a square overflows float16).

    Raises:
        ValueError: if temperature is a number and not positive, if temperature or eta is not a
            scalar, if f returns integers or does not reduce z to one value for each example, or
            if the baseline is neither a scalar nor one value for each example.
    """
    logits = as_logits("rebar_variance", logits)
    temperature, eta = _scalars("rebar_variance", temperature, eta, logits)
    draw = draw_relaxed(key, logits)
    values = evaluate("rebar_variance", f, draw.bits, logits.shape[:-1])
    signal = values if baseline is None else centered("rebar_variance", values, baseline)

    # Forward mode reaches t alone: reverse mode would also enter what f closes over.
    fixed = jax.lax.stop_gradient((temperature, eta))
    toward = logits if toward_mean else None
    control, control_by_t = jax.jvp(
        lambda t: _control("rebar_variance", f, draw, t, toward),
        (fixed[0],),
        (jnp.ones_like(fixed[0]),),
    )
    gradient = score_gradient(signal, draw) + fixed[1] * control
    value, by_t, by_eta = jax.lax.stop_gradient(
        (
            jnp.sum(gradient**2, axis=-1),
            jnp.sum(2 * gradient * fixed[1] * control_by_t, axis=-1),
            jnp.sum(2 * gradient * control, axis=-1),
        )
    )
    tuned = value + by_t * (temperature - fixed[0]) + by_eta * (eta - fixed[1])
    if baseline is None:
        return tuned
    by_baseline = jax.lax.stop_gradient(-jnp.sum(2 * gradient * draw.score, axis=-1))
    learned = jnp.asarray(baseline, by_baseline.dtype)
    return tuned + by_baseline * (learned - jax.lax.stop_gradient(learned))


class RebarGradients(NamedTuple):
    """The two parts of a gradient, each a mean over the examples in the form of the parameters."""

    value: jax.Array  # [...] f(b)
    signal: PyTree  # unbiased by itself: `reinforce` with the baseline
    control: PyTree  # of mean zero


def rebar_gradients(
    key: jax.Array,
    logits_fn: Callable[[PyTree], jax.Array],
    f: Callable[[PyTree, jax.Array], jax.Array],
    params: PyTree,
    *,
    temperature: jax.typing.ArrayLike,
    baseline: jax.typing.ArrayLike | None = None,
    toward_mean: bool = False,
) -> RebarGradients:
    """Estimates the gradient of mean E_q[f(b)] in parameters of q and f, in two parts.

    With l(p) the logits and c(p, z) = f(p, sigmoid(z / t)) at the draws of `rebar`, the gradients
    in the parameters p are those of the means over examples of

        signal:   (f(b) - C) log q(b) + f(p, b)
        control:  c(p, z) - c(p, z') - c(z') log q(b)

    where c(z') and f(b) in front of log q(b) are fixed. signal + eta control is unbiased for every
    eta, of which each array of parameters may have its own; `rebar` has one eta, and none for what
    f depends on. Both parts are differentiable in temperature and baseline, so that the squared
    norm of the sum can be descended in these and in eta. Tucker et al. (2017), section 3, and the
    program published with it, which has an eta for each array.

    Args:
        key: typed PRNG key; with that of `rebar` the draws are the same.
        logits_fn: maps params to logits [..., n].
        f: maps params and z [..., n] to [...], nats, floats, differentiable at z in [0, 1]^n.
        params: tree of float arrays; receives no gradient here.
        temperature: t > 0, scalar; receives the gradient.
        baseline: C, a scalar or [...], nats; receives the gradient. None: 0.
        toward_mean: as in `rebar`.

    Returns:
        RebarGradients.

    Raises:
        ValueError: if temperature is a number and not positive or is not a scalar, if f returns
            integers or does not reduce z to one value for each example, or if the baseline is
            neither a scalar nor one value for each example.
    """
    name = "rebar_gradients"
    params = jax.tree.map(as_float, jax.lax.stop_gradient(params))
    logits = as_logits(name, logits_fn(params))
    temperature, _ = _scalars(name, temperature, 0.0, logits)
    draw = draw_relaxed(key, logits)
    if toward_mean:
        draw = _toward(draw, logits, temperature)
    shape = logits.shape[:-1]

    def moved(params: PyTree) -> jax.Array:
        """Returns 0 [..., n], with the gradient of the logits."""
        finite = jnp.isfinite(logits)  # of a certain bit: inf - inf is NaN
        return jnp.where(finite, upcast(logits_fn(params)), 0) - jnp.where(
            finite, upcast(logits), 0
        )

    def relaxed(params: PyTree) -> jax.Array:
        """Returns c(z) and c(z') [2, ...]."""
        pair = draw.pair + draw.slopes * moved(params)[None]
        c = differentiable(
            lambda z: f(params, relaxed_bits(z, temperature).astype(logits.dtype)),
            f"{name} differentiates f at relaxed bits",
            "disarm or reinforce_loo",
        )
        return upcast(jax.vmap(lambda z: evaluate(name, c, z, shape))(pair))

    log_q = lambda params: jnp.sum(draw.score * moved(params), axis=-1)
    at_bits = lambda params: evaluate(name, lambda z: f(params, z), draw.bits, shape)
    values, given_bits = at_bits(params), relaxed(params)[1]
    factor = upcast(values) if baseline is None else centered(name, values, baseline)

    def signal(params: PyTree) -> jax.Array:
        return jnp.mean(factor * log_q(params) + upcast(at_bits(params)))

    def control(params: PyTree) -> jax.Array:
        free, conditional = relaxed(params)
        return jnp.mean(free - conditional - given_bits * log_q(params))

    return RebarGradients(values, jax.grad(signal)(params), jax.grad(control)(params))


def _control(
    name: str,
    f: Callable[[jax.Array], jax.Array],
    draw: RelaxedDraw,
    temperature: jax.Array,
    toward: jax.Array | None,
) -> jax.Array:
    """Evaluates the control variate's gradient in the logits at eta = 1, [..., n].

    Args:
      name: of the estimator.
      f: of the bits.
      draw: of the relaxed bits.
      temperature: t.
      toward: logits that the relaxed ones tend to as t grows; None: to 0.
    """
    if toward is not None:
        draw = _toward(draw, toward, temperature)
    dtype = draw.bits.dtype
    c = lambda z: f(relaxed_bits(z, temperature).astype(dtype))
    return control_gradient(name, c, draw, label="f")


def _toward(draw: RelaxedDraw, logits: jax.Array, temperature: jax.Array) -> RelaxedDraw:
    """Returns the draw with t^2 / (t + 1) times the logits more in its relaxed bits."""
    factor = temperature**2 / (temperature + 1)
    fixed = jax.lax.stop_gradient(upcast(logits))
    # The relaxed bits of infinite logits are infinite without; their product has no derivative.
    moved = factor * jnp.where(jnp.isfinite(fixed), fixed, 0)
    return draw._replace(pair=draw.pair + moved[None], slopes=draw.slopes + factor)


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
