"""Small models of `dvaepp`, and the first state of their training."""

import jax
import numpy as np

from dvae.train import sharding
from experiments.dvaepp import __main__ as dvaepp
from experiments.dvaepp.presets import PRESETS

TINY = PRESETS["smoke"]


def start(config, images, num_devices=1, spread=0.2):
    """The task and its first state, parameters moved off the zeros that some start at."""
    mesh = sharding.make_mesh(num_devices)
    everywhere = sharding.replicated(mesh)
    task = dvaepp.make_task(config, images, mesh)
    state = jax.jit(task.init, out_shardings=everywhere)(task.key_init, images.train)
    leaves, tree = jax.tree.flatten(state.params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    moved = [
        leaf + spread * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return task, state._replace(params=jax.tree.unflatten(tree, moved))


def check_moved(first, after, metrics) -> None:
    assert all(np.isfinite(value) for value in metrics.values())
    paths = jax.tree_util.tree_leaves_with_path(after.params)
    for (path, a), b in zip(paths, jax.tree.leaves(first.params), strict=True):
        assert not np.array_equal(a, b), jax.tree_util.keystr(path)
    assert {"kl_global", "kl_local_1", "kl_local_2", "objective"} <= set(metrics)


GRAPH = {"global_latents": "boltzmann", "graph": "four_partite"}
