"""Warns of a release of JAX that computes wrong numbers.

    v, x = rng.normal(size=100), rng.normal(size=(400, 100))  # float32
    jax.jit(lambda v, x: (v * x).sum(-1, keepdims=True) * x)(v, x)

On CPUs jaxlib 0.10.2 hands the sum and what follows to a library of kernels in one piece, and 73 of
these 400 rows are wrong: those behind element 32,768, unless rows divide it. 0.10.1 and 0.11 are
right, and so is 0.10.2 without these pieces. Gradients of `estimators.reinforce` and `muprop` of
functions like z -> (w z).sum(-1) had such rows.
"""

import os
import warnings

import jaxlib

_WRONG = "0.10.2"
_OPTION = "xla_cpu_experimental_ynn_fusion_type"


def warn() -> None:
    """Warns if the installed release is the wrong one, and nothing in XLA_FLAGS prevents it."""
    if jaxlib.__version__ == _WRONG and _OPTION not in os.environ.get("XLA_FLAGS", ""):
        warnings.warn(
            f"jaxlib {_WRONG} computes some sums of products wrongly on CPUs: install another "
            f"release (pip install 'jax!={_WRONG}'), or set XLA_FLAGS=--{_OPTION}=",
            RuntimeWarning,
            stacklevel=3,
        )
