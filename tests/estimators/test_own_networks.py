"""Networks of other libraries in f, as the guide by example says."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dvae import estimators

LOGITS = jnp.linspace(-1, 1, 12).reshape(4, 3)
ESTIMATORS = {
    "disarm": lambda f: estimators.disarm(jax.random.key(0), f, LOGITS),
    "rebar": lambda f: estimators.rebar(jax.random.key(0), f, LOGITS, eta=1.0, temperature=0.5),
}


class Network(nnx.Module):
    def __init__(self, layer):
        self.hidden = nnx.Linear(3, 5, rngs=nnx.Rngs(0))
        self.layer = layer

    def __call__(self, z):
        return self.layer(self.hidden(z)).sum(-1)


LAYERS = {
    "batch_norm": lambda: nnx.BatchNorm(5, rngs=nnx.Rngs(1)),
    "dropout": lambda: nnx.Dropout(0.5, rngs=nnx.Rngs(1)),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_stateful_module_runs_inside_of_vmap_by_either_remedy(estimator, layer) -> None:
    estimate, network = ESTIMATORS[estimator], Network(LAYERS[layer]())
    with pytest.raises(flax.errors.TraceContextError):
        estimate(network)
    graph, state = nnx.split(network)
    assert np.isfinite(estimate(lambda z: nnx.merge(graph, state, copy=True)(z)).value).all()
    network.eval()
    assert np.isfinite(estimate(network).value).all()


def test_a_network_for_single_examples_takes_several_samples_by_vectorize() -> None:
    weights = jnp.arange(6.0).reshape(3, 2)

    def single(z):
        assert z.shape == (3,)
        return jnp.tanh(z @ weights)

    wrapped = jnp.vectorize(single, signature="(n)->(p)")
    found, expected = (
        estimators.reinforce_loo(jax.random.key(0), f, LOGITS, num_samples=3).value
        for f in (lambda z: wrapped(z).sum(-1), lambda z: jnp.tanh(z @ weights).sum(-1))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
