"""Bounds on the log-likelihood: what a model is trained on and what is reported.

A loss reads like the equation it implements; `dvae.distributions` supplies the terms of each unit:

    log_px = bounds.sum_per_example(categorical.log_prob(x, decoder_logits))    # log p(x|z)
    kl = bounds.sum_per_example(categorical.kl(logits_q, logits_p))             # KL(q(z|x), p(z))
    kl_weight = bounds.linear_warmup(step, num_steps)
    loss = -jnp.mean(bounds.elbo(log_px, kl, kl_weight=kl_weight))

These numbers share the unit of nats, and not all of them say something about log p(x):

*   `elbo` with discrete z and `kl_weight` 1: its mean over z ~ q is a lower bound of log p(x).
*   `iwae`, and the value of `dreg`: in the mean a lower bound too, never looser as K grows.
*   `log_likelihood`: `iwae` with thousands of samples, streamed in constant memory. Still a lower
    bound in the mean, close to log p(x) if its effective sample size is well above one.
*   `joint_elbo` and `marginal_elbo` bound log p(x) of the model whose bits are smoothed alike in q
    and in p, not of the binary one that it tends to.
*   any of the others with a relaxed zeta in place of z, or with another `kl_weight`: a training
    objective that bounds nothing. Report hard samples.
*   `balanced_kl`, `free_bits` and `capacity_penalty` turn KLs into terms of a training objective:
    with them it bounds nothing either (the first one only until its warm-up is over).

All functions but `capacity_penalty`, which is one of a mean over images, keep the batch axes; means
over the batch are the caller's, so that standard errors over images can be had
(`mean_and_standard_error`).
"""

from dvae.bounds.balancing import balanced_kl, balancing_coefficients, free_bits
from dvae.bounds.capacity import capacity_penalty, capacity_schedule, max_discrete_capacity
from dvae.bounds.elbo import bits_per_dim, elbo, linear_warmup, sum_per_example
from dvae.bounds.evaluate import (
    LogLikelihood,
    MeanEstimate,
    log_likelihood,
    mean_and_standard_error,
)
from dvae.bounds.iwae import dreg, iwae
from dvae.bounds.smoothed import joint_elbo, marginal_elbo

__all__ = [
    "LogLikelihood",
    "MeanEstimate",
    "balanced_kl",
    "balancing_coefficients",
    "bits_per_dim",
    "capacity_penalty",
    "capacity_schedule",
    "dreg",
    "elbo",
    "free_bits",
    "iwae",
    "joint_elbo",
    "linear_warmup",
    "log_likelihood",
    "marginal_elbo",
    "max_discrete_capacity",
    "mean_and_standard_error",
    "sum_per_example",
]
