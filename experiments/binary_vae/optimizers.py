"""The optimizer of `binary_vae`: Adam, and what has a learning rate of its own beside it."""

from typing import Any

import jax
import optax

from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.common import schedules

PyTree = Any
_DECAYED = ("kernel", "scale", "weights")  # of layers, of batch norm, of the Boltzmann machine


def optimizer(config: Config) -> optax.GradientTransformation:
    """Returns Adam under the schedule, or plain SGD for the prior's logits beside it.

    A control variate has a learning rate of its own, and a baseline may have one.
    """
    adam = _adam(config)
    if not config.prior_learning_rate:
        return adam

    def is_prior(path: Any, _: Any) -> bool:
        first, last = (getattr(k, "key", None) for k in (path[0], path[-1]))
        return first == "network" and last in ("prior_logits", "prior_bias")

    labels = lambda params: jax.tree_util.tree_map_with_path(is_prior, params)
    return optax.multi_transform({False: adam, True: optax.sgd(config.prior_learning_rate)}, labels)


def _adam(config: Config) -> optax.GradientTransformation:
    """Returns Adam, with the parameters apart that have a rate of their own."""
    rates = schedules.learning_rates(config.schedule, config.learning_rate, config.num_steps)
    adam = lambda rates: optax.adam(rates, b2=config.adam_b2, eps=config.adam_eps)
    model = adam(rates)
    if config.weight_decay:
        # Added to the gradient, as the derivative of the penalty is, not to Adam's step.
        model = optax.chain(optax.add_decayed_weights(config.weight_decay, _decayed), model)
    if config.prior != names.DIRECTED:
        return model
    apart: tuple[str, ...]
    if config.estimator in names.LEARNED_CONTROL:
        apart, other = ("control",), adam(lambda step: config.control_rate * rates(step))
    elif config.estimator in names.LEARNED_BASELINE and config.baseline_learning_rate:
        rate = config.baseline_learning_rate
        apart = ("baseline", "scales")
        other = adam(schedules.learning_rates(config.schedule, rate, config.num_steps))
    else:
        return model
    labels = lambda params: {name: name in apart for name in params}
    return optax.multi_transform({False: model, True: other}, labels)


def _decayed(params: PyTree) -> PyTree:
    """Marks the parameters of the model that weight decay acts on."""

    def decays(path: Any, _: Any) -> bool:
        first, last = (getattr(k, "key", getattr(k, "name", None)) for k in (path[0], path[-1]))
        return first in ("network", "prior") and last in _DECAYED

    return jax.tree_util.tree_map_with_path(decays, params)
