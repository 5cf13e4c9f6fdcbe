"""Discrete-latent variational autoencoders in JAX.

`relax`, `estimators`, `vq`, `bounds` and `distributions` are pure functions of arrays, free of
Flax, files and global state; `models`, `data`, `train` and `analysis` build on them. Import what
you use:

    from dvae import bounds, distributions, estimators, relax, vq
"""

__version__ = "0.1.0"
