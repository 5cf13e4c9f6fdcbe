"""Relaxations: continuous samples, or continuous gradients, in the place of discrete variables.

One module per family, each with a deterministic core that maps noise to a sample and a one-line
`sample(key, logits, ...)` on top of it:

    y = relax.gumbel_softmax.sample(key, logits, temperature)             # on the simplex
    y = relax.gumbel_softmax.sample(key, logits, temperature, hard=True)  # one-hot forward
    z = relax.straight_through.bernoulli(key, logits)                     # a bit forward

Everything is elementwise over units (gumbel_softmax and straight_through.categorical: over all
axes but the last, the class axis), keeps the dtype of the logits, and is differentiable in the
logits and in the temperature.
"""

from dvae.relax import gumbel_softmax, straight_through

__all__ = ["gumbel_softmax", "straight_through"]
