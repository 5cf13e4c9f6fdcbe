"""`dvaepp`: likelihood against enumeration, samples of the prior."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dvaepp_cases import TINY, start

from dvae import rbm
from dvae.distributions import bernoulli
from dvae.models import boltzmann, dvaepp_latents
from dvae.models import dvaepp as networks
from dvae.train import sharding
from experiments.dvaepp import evaluation as dvaepp_evaluation
from experiments.dvaepp import task as dvaepp_task
from experiments.dvaepp.config import Config
from experiments.dvaepp.presets import ROWS


def bits_of(num_units):
    return np.array(list(itertools.product((0.0, 1.0), repeat=num_units)), np.float32)


def exact_log_likelihood(config, module, params, x):
    """log sum over all bits of p(z) p(h | z) p(x | z, h), each image by itself."""
    run = dvaepp_task.bind(module, params["network"])
    num_global = config.num_groups * config.num_latents
    sides = module.config.local_sides
    num_local = math.prod(sides) * config.local_size
    states = bits_of(num_global + config.local_groups * num_local)
    z, rest = states[:, :num_global], states[:, num_global:]
    groups = np.split(z, config.num_groups, axis=1)
    log_p = boltzmann.log_prob(params["prior"], rbm.exact.log_z(params["prior"]), groups)
    h = rest.reshape(len(states), config.local_groups, *sides, config.local_size)
    # Fixed values instead of draws: a group is known by the key that it is given.
    key_groups = jax.random.key(0)
    folded = [jax.random.fold_in(key_groups, j) for j in range(config.local_groups)]
    keys = jax.random.key_data(jnp.stack(folded))

    def fixed(key, q, p):
        group = jnp.argmax((keys == jax.random.key_data(key)[None]).all(-1))
        bits = jnp.take(jnp.asarray(h), group, axis=1)
        return 2 * bits - 1, bernoulli.log_prob(bits, p).sum((1, 2, 3))

    context = run(networks.DVAEPP.expand, [2 * g - 1 for g in groups])
    context, local = run(networks.DVAEPP.local_groups, key_groups, context, None, fixed)
    values = []
    for image in x:
        repeated = jnp.broadcast_to(image[None], (len(states), *image.shape))
        log_px = run(networks.DVAEPP.log_likelihood, context, repeated)
        values.append(jax.nn.logsumexp(log_p + local.sum(0) + log_px))
    return np.array(values)


ENUMERABLE = {
    **TINY,
    **ROWS["rbm_bernoulli"],
    "num_latents": 2,
    "local_size": 1,
    "ais_temperatures": 400,
    "ais_chains": 500,
}


@pytest.mark.thorough
def test_evaluation_approaches_the_enumerated_log_likelihood(images) -> None:
    small = images._replace(test=images.test[:4, 2:6, 2:6], train=images.train[:, 2:6, 2:6])
    config = Config(**ENUMERABLE)
    _, state = start(config, small._replace(validation=small.test))
    module = config.model((4, 4, 1))
    exact = exact_log_likelihood(config, module, state.params, small.test)
    evaluator = dvaepp_evaluation.Evaluator(config, small, sharding.make_mesh(1))
    results = evaluator.evaluate(state.params, {}, small.test, num_samples=4_000)
    prior = state.params["prior"]
    log_z_error = float(results.log_z.value[0] - rbm.exact.log_z(prior))
    assert abs(log_z_error) < 5 * results.log_z.std_error[0] + 1e-5
    # The log of a mean of weights is off by one over the root of their effective number.
    off = results.log_likelihood[0] + log_z_error - exact
    assert (np.abs(off) < 5 / np.sqrt(results.ess[0])).all()
    assert (results.ess[0] > 100).all()
    assert results.kl.shape == (1, 4, 3)


def test_parts_of_the_kl_are_the_global_variables_and_each_group() -> None:
    values = np.array([[1.0, 2.0]])
    kl = np.array([[[1.0, 10.0, 100.0], [3.0, 30.0, 300.0]]])  # [S, images, parts]
    found = dvaepp_evaluation.Evaluation(values, values, values, kl, None, None).means()
    parts = {"kl_global": 2.0, "kl_local_1": 20.0, "kl_local_2": 200.0, "kl": 222.0}
    assert {name: found[name] for name in parts} == parts


@pytest.mark.thorough
def test_samples_share_their_global_variables(images) -> None:
    config = Config(**{**TINY, "global_latents": "normal", "local_groups": 0})
    _, state = start(config, images)
    evaluator = dvaepp_evaluation.Evaluator(config, images, sharding.make_mesh(1))
    samples = evaluator.sample_prior(state.params, {}, 6, num_each=2)
    assert samples.shape == (6, 8, 8, 1)
    # Without local variables a draw of the global ones decides the picture.
    np.testing.assert_array_equal(samples[::2], samples[1::2])
    assert not np.array_equal(samples[0], samples[2])


def test_bernoulli_prior_samples_follow_their_logits() -> None:
    config = Config(**{**TINY, "global_latents": "bernoulli"})
    prior = jnp.array([[30.0, -30.0], [-30.0, 30.0]])
    seen = dvaepp_latents.prior_globals(jax.random.key(0), config, prior, None, 5)
    np.testing.assert_array_equal(seen[0], np.tile([1.0, -1.0], (5, 1)))
    np.testing.assert_array_equal(seen[1], np.tile([-1.0, 1.0], (5, 1)))
