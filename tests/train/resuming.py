"""A small task, and what the tests assert of resumed runs."""

import jax
import jax.numpy as jnp
import numpy as np

from dvae.train import loop, state
from dvae.train.metrics import read_metrics


def walk(optimizer, monitor="norm"):
    """The task of following noise with two parameters; the model state counts the steps."""
    init = lambda key, data: (jax.random.normal(key, (2,)), jnp.zeros(()))
    draw = lambda key, data, step: data + jax.random.normal(jax.random.fold_in(key, step), (2,))

    def loss(params, count, batch, key, step):
        return jnp.square(params - batch).sum(), (count + 1, {})

    return loop.Task(
        init=lambda key, data: state.init(init, optimizer, key, data),
        step=state.make_step(loss, draw, optimizer),
        evaluate=lambda train_state: {"norm": np.linalg.norm(train_state.params)},
        data=np.ones(2, np.float32),
        key_init=jax.random.key(0),
        key_train=jax.random.key(1),
        images_per_step=1,
        monitor=monitor,
    )


def assert_same_end(found, expected):
    """The states and the best parameters of two results have the same types and bits."""
    ends = [(result.state, result.best) for result in (found, expected)]
    assert jax.tree.structure(ends[0]) == jax.tree.structure(ends[1])
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def assert_same_records(workdir, other):
    """The records of two runs hold the same bits, their speed excepted."""
    timeless = lambda record: {k: v for k, v in record.items() if "per_second" not in k}
    found, expected = (list(map(timeless, read_metrics(path))) for path in (workdir, other))
    assert found == expected


def assert_resumes_bitwise(task, config, workdir, mesh):
    """A run goes on in its directory and ends like one that was never interrupted.

    Returns its result and the directory of the other one.
    """
    whole = workdir.parent / f"{workdir.name}_whole"
    result = loop.fit(task, config, workdir, mesh)
    assert_same_end(result, loop.fit(task, config, whole, mesh))
    return result, whole
