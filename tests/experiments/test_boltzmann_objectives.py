"""`binary_vae` under Boltzmann priors: objectives and negative phases against enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boltzmann_cases import TINY, bits_of, start

from dvae import rbm
from dvae.distributions import bernoulli
from dvae.models import binary as binary_model
from dvae.models import boltzmann
from experiments.binary_vae import boltzmann_objectives, names
from experiments.binary_vae.config import Config
from experiments.binary_vae.objectives import Batch
from experiments.boltzmann import prior as boltzmann_prior
from experiments.boltzmann.names import ANNEALING, PCD, TEMPERING


def enumerate_states(config, model, prior, num_images):
    """All bits of a posterior of G groups: log q, log p(x|z) and log p(z), [states, images]."""
    states = bits_of(config.num_groups * config.num_latents)
    groups = [
        jnp.broadcast_to(part[:, None], (len(states), num_images, config.num_latents))
        for part in np.split(states, config.num_groups, axis=-1)
    ]
    log_q = 0.0
    for g, z in enumerate(groups):
        logits = jnp.broadcast_to(model.posterior_logits(groups[:g]), z.shape)
        log_q += bernoulli.log_prob(z, logits).sum(-1)
    return (
        log_q,
        model.log_likelihood(groups),
        boltzmann.log_prob(prior, rbm.exact.log_z(prior), groups),
    )


SHARP = {
    "dvae": dict(method=names.DVAE),
    "dvaepp": dict(method=names.DVAEPP),
    "dvaes": dict(method=names.DVAES, bound=names.ELBO),
    "dvaes-iw": dict(method=names.DVAES, bound=names.IW, num_samples=2),
    "dvaes-integral": dict(method=names.DVAES, bound=names.ELBO, smoothing=names.GAUSSIAN_INTEGRAL),
}
# The other combinations share their code.
QUICK = {("dvae", 2), ("dvaepp", 2), ("dvaes-iw", 2), ("dvaes-integral", 1)}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "num_groups"),
    [
        pytest.param(name, groups, marks=() if (name, groups) in QUICK else pytest.mark.slow)
        for name in SHARP
        for groups in (1, 2)
    ],
)
def test_sharp_objectives_approach_the_enumerated_bound(images, name, num_groups) -> None:
    # The mean field of dvaes is exact once every zeta gives its bit away.
    sizes = {"num_groups": num_groups, "num_latents": 4 // num_groups, "beta": 300.0}
    config = Config(**{**TINY, **SHARP[name], **sizes})
    _, first, prior = start(config, images)
    x = jnp.asarray(images.test[:6].reshape(6, -1), jnp.float32)
    model = binary_model.bind(
        config.model(64), first.params["network"], first.model_state["mean"], x
    )
    components = first.params.get("components")
    machine = boltzmann_objectives.Prior(prior, rbm.exact.log_z(prior), components)
    weight = 0.7
    batch = Batch(x - first.model_state["mean"][None], jnp.int32(0), weight)
    method = boltzmann_objectives.METHODS[config.method]
    objective = lambda key: method(key, model, machine, batch, config).objective
    keys = jax.random.split(jax.random.key(3), 4_000)
    values = np.asarray(jax.jit(jax.vmap(objective))(keys))
    log_q, log_likelihood, log_p = enumerate_states(config, model, prior, 6)
    log_weights = log_likelihood + weight * (log_p - log_q)
    if config.bound == names.IW:
        pairs = jnp.logaddexp(log_weights[:, None], log_weights[None]) - np.log(2)
        expected = (jnp.exp(log_q[:, None] + log_q[None]) * pairs).sum((0, 1))
    else:
        expected = (jnp.exp(log_q) * log_weights).sum(0)
    error = values.std(0) / np.sqrt(len(values))
    assert (error < 0.1).all()
    # A bit's relaxation is off by 1/300, which moves the likelihood's mean by about as much.
    np.testing.assert_array_less(abs(values.mean(0) - expected), 5 * error + 0.05)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("sampler", [PCD, TEMPERING, ANNEALING])
def test_log_z_is_estimated_now_and_then(images, sampler) -> None:
    settings = {"sampler": sampler, "num_chains": 1_000, "num_latents": 8, "log_z_interval": 3}
    config = Config(**{**TINY, **settings})
    _, first, prior = start(config, images)
    phase = jax.jit(boltzmann_prior.negative_phase, static_argnames="config")
    chains, log_z = first.model_state["chains"], first.model_state["log_z"]
    np.testing.assert_allclose(log_z, rbm.exact.log_z(first.params["prior"]), rtol=1e-6)
    keys = jax.random.split(jax.random.key(1), 30)
    for step in range(3, 33):
        after = phase(keys[step - 3], config, prior, chains, log_z, jnp.int32(step))
        assert (after.last_log_z != log_z) == (step % 3 == 0)
        assert after.log_z == after.last_log_z == after.metrics["log_z"]
        chains, log_z = after.chains, after.last_log_z
    np.testing.assert_allclose(log_z, rbm.exact.log_z(prior), atol=0.1)
    assert abs(rbm.exact.log_z(prior) - first.model_state["log_z"]) > 0.5
    np.testing.assert_allclose(
        after.metrics["coupling_norm"], np.linalg.norm(prior.weights), rtol=1e-5
    )
    if sampler != PCD:  # on a machine that stays, the samplers know log Z themselves
        np.testing.assert_allclose(after.metrics["sampler_log_z"], rbm.exact.log_z(prior), atol=0.2)


@pytest.mark.thorough
def test_the_ladder_is_adapted_on_request(images) -> None:
    settings = {"sampler": TEMPERING, "num_chains": 200, "adapt_interval": 2}
    config = Config(**{**TINY, **settings})
    _, first, prior = start(config, images)
    strong = prior._replace(weights=8 * prior.weights)
    phase = jax.jit(boltzmann_prior.negative_phase, static_argnames="config")
    chains, log_z = first.model_state["chains"], first.model_state["log_z"]
    ladders = []
    for step in (1, 2):
        key = jax.random.fold_in(jax.random.key(0), step)
        after = phase(key, config, strong, chains, log_z, jnp.int32(step))
        ladders.append(np.array(after.chains.betas))
    np.testing.assert_array_equal(ladders[0], chains.betas)
    assert not np.allclose(ladders[1], chains.betas, atol=1e-3)
    assert (ladders[1][0], ladders[1][-1]) == (0, 1)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("sampler", [PCD, ANNEALING])
def test_gradient_of_the_prior_is_that_of_its_likelihood(images, sampler) -> None:
    config = Config(**{**TINY, "sampler": sampler, "num_chains": 20_000, "num_sweeps": 30})
    _, first, prior = start(config, images)

    def log_z(prior):
        state = first.model_state
        inputs = (config, prior, state["chains"], state["log_z"], jnp.int32(1))
        return boltzmann_prior.negative_phase(jax.random.key(0), *inputs).log_z

    gradient = jax.jit(jax.grad(log_z))(prior)
    for a, b in zip(gradient, rbm.exact.moments(prior), strict=True):
        np.testing.assert_allclose(a, b, atol=5 * 0.5 / np.sqrt(20_000) * 1.5)
