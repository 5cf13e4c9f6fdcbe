"""Gumbel-Softmax of 65,536 variables of 512 classes, sample and gradient.

    python benchmarks/gumbel_softmax.py

`relax.gumbel_softmax` against the plain way to write it in JAX, and PyTorch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from _timing import Comparison, compare, show

from dvae import relax

VARIABLES, CLASSES, TEMPERATURE = 65_536, 512, 0.5


def comparisons() -> list[Comparison]:
    """Times the sample and the gradient of a weighted sum of it."""
    keys = jax.random.split(jax.random.key(0), 3)
    logits = jax.random.normal(keys[0], (VARIABLES, CLASSES))
    weights = jax.random.normal(keys[1], (CLASSES,))

    def ours(logits: jax.Array) -> jax.Array:
        return (relax.gumbel_softmax.sample(keys[2], logits, TEMPERATURE) @ weights).sum()

    def plain(logits: jax.Array) -> jax.Array:
        uniform = jax.random.uniform(keys[2], logits.shape, minval=1e-20)
        y = jax.nn.softmax((logits - jnp.log(-jnp.log(uniform))) / TEMPERATURE)
        return (y @ weights).sum()

    theirs = torch.from_numpy(np.array(logits)).requires_grad_()
    vector = torch.from_numpy(np.array(weights))

    def pytorch() -> torch.Tensor:
        theirs.grad = None
        y = torch.nn.functional.gumbel_softmax(theirs, tau=TEMPERATURE)
        (y @ vector).sum().backward()
        return theirs.grad

    compiled = {
        name: jax.jit(jax.value_and_grad(f)) for name, f in (("ours", ours), ("plain", plain))
    }
    calls = {
        "relax.gumbel_softmax": lambda: compiled["ours"](logits),
        "plain JAX": lambda: compiled["plain"](logits),
        "PyTorch": pytorch,
    }
    title = f"Gumbel-Softmax, {VARIABLES} variables of {CLASSES} classes, sample and gradient"
    return [compare(title, calls, repeats=5, mark="no slower than plain JAX")]


if __name__ == "__main__":
    show(comparisons())
