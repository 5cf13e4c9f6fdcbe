"""Distributions as free functions, one module per family; the discrete ones take logits.

    z = distributions.bernoulli.sample(key, logits)        # logits [..., n] -> z [..., n] in {0, 1}
    z = distributions.categorical.sample(key, logits)      # logits [..., C] -> one-hot z [..., C]

Every family has `sample(key, logits, shape=())`, `log_prob(z, logits)`, `entropy(logits)`,
`kl(logits_q, logits_p)` and `support(logits)`. They are elementwise over units (a categorical's
last axis is its class axis): nothing is summed behind the caller's back. All values are in nats.

Samples carry no gradient; `dvae.relax` and `dvae.estimators` supply one. Outputs keep the dtype of
the inputs, computed in float32 inside.

`normal` has the same functions but `support`, of a mean and the log of a standard deviation, and
its samples do carry gradients. `discretized_logistic`, mixtures over the levels of images, has
`sample` and `log_prob` only, the latter of whole pixels and in float32.
"""

from dvae.distributions import bernoulli, categorical, discretized_logistic, normal

__all__ = ["bernoulli", "categorical", "discretized_logistic", "normal"]
