"""What may keep codes of Gumbel-Softmax models in use, against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import data
from dvae.distributions import categorical
from dvae.train import sharding
from dvae.train.state import TrainState
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import code_use
from experiments.cifar_vq.config import Config
from experiments.cifar_vq.presets import PRESETS
from experiments.common import flag_rules, flags

N, C, D = 2, 3, 4


def test_the_prior_is_uniform_at_first_and_not_learned() -> None:
    log_prior = jax.nn.log_softmax(jnp.array([[0.0, 1.0, 2.0]] * N))
    config = Config(prior_warmup_steps=5)
    at = lambda x, step: code_use.prior(config, x, jnp.int32(step))
    np.testing.assert_allclose(at(log_prior, 4), np.full((N, C), -np.log(C)), rtol=1e-6)
    np.testing.assert_array_equal(at(log_prior, 5), log_prior)
    slopes = [jax.grad(lambda x, s=s: at(x, s)[0, 0])(log_prior) for s in (4, 5)]
    assert [int(jnp.count_nonzero(slope)) for slope in slopes] == [0, 1]
    assert code_use.prior(Config(), log_prior, jnp.int32(0)) is log_prior


def test_below_the_floor_codes_cost_what_a_uniform_prior_charges() -> None:
    logits = 2 * jax.random.normal(jax.random.key(0), (5, 2, 3, N, C))
    positions = 2 * 3
    log_mean = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=(0, 1, 2)) - np.log(5 * positions)
    cost = lambda prior: categorical.kl(logits, prior[None, None, None]).sum((1, 2, 3)).mean()
    fitted, uniform = cost(log_mean), cost(jnp.full((N, C), -np.log(C)))
    np.testing.assert_allclose(fitted + code_use.lacking_entropy(logits, 1.0), uniform, rtol=1e-5)
    entropy = -(np.exp(log_mean) * log_mean).sum(-1)
    floor = float(entropy.mean() / np.log(C))  # between those of the two latent variables
    lacking = positions * np.maximum(0.0, floor * np.log(C) - entropy).sum()
    np.testing.assert_allclose(code_use.lacking_entropy(logits, floor), lacking, rtol=1e-4)
    assert code_use.lacking_entropy(logits, 0.1) == 0


def test_seldom_codes_move_to_encodings_and_get_a_prior_back() -> None:
    keys = jax.random.split(jax.random.key(1), 3)
    codebook = jax.random.normal(keys[0], (N, C, D))
    vectors = jax.random.normal(keys[1], (4, 1, 1, N, D))
    codes = jnp.array([[0, 1]] * 4).reshape(4, 1, 1, N)
    state = code_use.start(codebook, 0.1)._replace(
        counts=jnp.array([[1.0, 1.0, 0.01], [1.0, 1.0, 1.0]])
    )
    state = code_use.count(keys[2], state, codebook, vectors, codes, threshold=0.1)
    np.testing.assert_array_equal(state.moved, [[False, False, True], [False] * 3])
    np.testing.assert_allclose(state.counts[0], [0.99 + 0.04, 0.99, 1.0], rtol=1e-6)
    target = state.targets[0, 2]
    assert (target[None] == vectors[:, 0, 0, 0]).all(-1).any()

    logits = jnp.array([[0.0, 1.0, -20.0], [0.0, 1.0, -20.0]])
    params = {"network": {"prior_logits": logits, "other": 1}, "codebook": codebook}
    step = code_use.restarting(lambda state, data, key: (state, {}))
    after, _ = step(TrainState(jnp.int32(0), params, state, ()), (), None)
    np.testing.assert_array_equal(after.params["codebook"][0, 2], target)
    np.testing.assert_array_equal(after.params["codebook"][0, :2], codebook[0, :2])
    np.testing.assert_array_equal(after.params["codebook"][1], codebook[1])
    found = after.params["network"]["prior_logits"]
    np.testing.assert_allclose(jax.nn.softmax(found[0])[2], 1 / C, rtol=1e-6)
    np.testing.assert_array_equal(found[1], logits[1])
    # Where all codes move there is nothing to compare with, and the prior stays.
    everything = state._replace(moved=jnp.ones((N, C), bool))
    after, _ = step(TrainState(jnp.int32(0), params, everything, ()), (), None)
    np.testing.assert_array_equal(after.params["network"]["prior_logits"], logits)


def test_a_step_with_all_of_them_trains() -> None:
    images = data.load("patches")
    images = images._replace(
        train=images.train[:32], validation=images.validation[:8], num_train_of_all=32
    )
    settings = {**PRESETS["smoke"], "features": 4, "code_dim": 4, "crop": 8, "eval_interval": 0}
    settings |= {"prior_warmup_steps": 1, "entropy_floor": 0.9, "restart_samples": 1e3}
    mesh = sharding.make_mesh(1)
    task = cifar_vq.make_task(Config(**settings), images, mesh)
    before = jax.jit(task.init)(task.key_init, images.train)
    counts = jnp.zeros_like(before.model_state.counts)
    before = before._replace(model_state=before.model_state._replace(counts=counts))
    after, metrics = jax.jit(task.step)(before, images.train, task.key_train)
    assert after.model_state.moved.all(), "every code is sampled less than 1,000 times"
    np.testing.assert_array_equal(after.params["codebook"], after.model_state.targets)
    assert np.isfinite(metrics["loss"]).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"--entropy_floor=1\.5 must be at most 1"):
        Config(entropy_floor=1.5)


@pytest.mark.parametrize("threshold", [0.01, 3.0, 50.0])
def test_no_code_moves_before_it_could_be_counted(threshold) -> None:
    """Also where more samples a step are asked for than the count begins with."""
    codebook = jnp.zeros((N, C, D))
    state = code_use.start(codebook, threshold)
    codes = jnp.zeros((4, 1, 1, N), jnp.int32)  # one code has all samples
    vectors = jnp.ones((4, 1, 1, N, D))
    state = code_use.count(jax.random.key(0), state, codebook, vectors, codes, threshold)
    assert not state.moved.any()


def test_settings_of_codes_that_do_nothing_are_named() -> None:
    with pytest.raises(ValueError, match="--prior_warmup_steps=80 must be below --num_steps=80"):
        Config(prior_warmup_steps=80, num_steps=80)
    idle = lambda stages: flag_rules.idle(
        flags.rules_of(Config), {**vars(Config(estimator="residual", num_stages=stages))}
    )
    assert "stage_dropout" in idle(1)
    assert "stage_dropout" not in idle(2)
