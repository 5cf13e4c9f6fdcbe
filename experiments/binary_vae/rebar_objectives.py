"""Objectives of `binary_vae` with a control variate of relaxed bits: REBAR and RELAX.

Both maximize E_q[f(z)] - w KL(q, p), f(z) = log p(x|z), of one group. Equations are those of the
gradient in q, to which that of f at the sample comes; l are the logits of q(z|x), y = l + logistic
noise unbounded relaxed bits, z = 1[y > 0], and y' are others of the same z.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae import estimators
from dvae.models.binary import Networks
from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.binary_vae.objectives import (
    Auxiliary,
    Batch,
    Objective,
    PyTree,
    Terms,
    one_group,
    predict,
    weight,
)


def rebar(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Takes c(y) = eta f(sigmoid(y / t)) as control variate, y' given z (Tucker et al., 2017).

    (f(z) - C(x) - c(y')) grad log q(z|x) + grad c(y) - grad c(y')

    eta and t descend the variance of this gradient in l. So does the network C with
    rebar_baseline; otherwise it is 0. With rebar_scale y has l t^2 / (t + 1) added in c.
    """
    if config.rebar_eta == names.VARIABLES:
        return _rebar_of_variables(key, model, auxiliary, batch, config)
    group, control = one_group(model), auxiliary.params["control"]
    scalars = {"temperature": jnp.exp(control["log_temperature"]), "eta": control["eta"]}
    learned = {**scalars, "baseline": _baseline(control, batch, config)}
    toward_mean = config.rebar_scale == names.MUPROP
    fixed = jax.lax.stop_gradient(learned)
    estimate = estimators.rebar(key, group.f, group.logits, toward_mean=toward_mean, **fixed)
    variance = estimators.rebar_variance(
        jax.random.clone(key), group.f, group.logits, toward_mean=toward_mean, **learned
    ).mean()
    return group.terms(estimate, batch)._replace(auxiliary_loss=variance, metrics=scalars)


def _baseline(control: PyTree, batch: Batch, config: Config) -> jax.Array | None:
    """Returns the values of a learned baseline [B]; None without one."""
    if config.rebar_baseline == names.NONE:
        return None
    return predict(control["baseline"], batch.x)


def _rebar_of_variables(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Gives every kernel and bias v, also of the decoder, an eta of its own in (0, 2).

    g_v = F_v + eta_v H_v, the two parts of `estimators.rebar_gradients` for the batch

    All eta_v, t and C descend sum_v ||g_v||^2. The divergence, whose gradient has no noise but that
    of the batch, is no part of g.
    """
    group, control = one_group(model), auxiliary.params["control"]
    network = auxiliary.params["network"]
    temperature = jnp.exp(control["log_temperature"])
    parts = estimators.rebar_gradients(
        key,
        lambda network: auxiliary.networks(network).posterior_logits([]),
        lambda network, z: auxiliary.networks(network).log_likelihood([z]),
        network,
        temperature=temperature,
        baseline=_baseline(control, batch, config),
        toward_mean=config.rebar_scale == names.MUPROP,
    )
    etas = jax.tree.map(weight, control["eta"])
    gradient = jax.tree.map(lambda f, h, eta: f + eta * h, parts.signal, parts.control, etas)
    norm = lambda tree: sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))
    # Adds a gradient: its value is 0.
    along = lambda g, v: jnp.sum(jax.lax.stop_gradient(g) * (v - jax.lax.stop_gradient(v)))
    ascent = sum(jax.tree.leaves(jax.tree.map(along, gradient, network)))
    value = jax.lax.stop_gradient(parts.value)
    terms = group.terms(estimators.Estimate(value, value), batch)
    leaves = jnp.stack(jax.tree.leaves(etas))
    return terms._replace(
        auxiliary_loss=norm(gradient) - ascent,
        metrics={"temperature": temperature, "eta": leaves.mean()},
    )


def relax(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Takes c(y) = eta f(sigmoid(y / t)) + r(y), r a network (Grathwohl et al., 2018).

    (f(z) - c(y')) grad log q(z|x) + grad c(y) - grad c(y')

    eta, t and r descend the variance of this gradient in l, which must not move the decoder: the f
    of c has no gradient in its parameters.
    """
    group, control = one_group(model), auxiliary.params["control"]

    def control_variate(control: PyTree) -> Callable[[jax.Array], jax.Array]:
        temperature = jnp.exp(control["log_temperature"])
        f = lambda y: model.frozen_log_likelihood([jax.nn.sigmoid(y / temperature)])
        return lambda y: control["eta"] * f(y) + predict(control["free"], y)

    of_constants = control_variate(jax.lax.stop_gradient(control))
    estimate = estimators.relax(key, group.f, group.logits, control_variate=of_constants)
    variance = estimators.relax_variance(
        jax.random.clone(key), group.f, group.logits, control_variate=control_variate(control)
    ).mean()
    metrics = {"temperature": jnp.exp(control["log_temperature"]), "eta": control["eta"]}
    return group.terms(estimate, batch)._replace(auxiliary_loss=variance, metrics=metrics)


ESTIMATORS: dict[str, Objective] = {names.REBAR: rebar, names.RELAX: relax}
