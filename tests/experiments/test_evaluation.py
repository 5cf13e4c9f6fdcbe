"""What the evaluations of all programs read, and what they refuse before anything is compiled."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import data
from dvae.models import binary as binary_model
from dvae.models import boltzmann, checks, dvaepp_latents
from dvae.models import joint as joint_networks
from dvae.train import sharding
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import evaluation as binary_evaluation
from experiments.binary_vae import presets as binary_presets
from experiments.binary_vae.config import Config as BinaryConfig
from experiments.boltzmann import prior as boltzmann_prior
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import config as vq_config
from experiments.cifar_vq import evaluation as vq_evaluation
from experiments.cifar_vq import presets as vq_presets
from experiments.common import evaluation
from experiments.dvaepp import __main__ as dvaepp
from experiments.dvaepp import config as dvaepp_config
from experiments.dvaepp import evaluation as dvaepp_evaluation
from experiments.dvaepp import presets as dvaepp_presets
from experiments.joint_vae import __main__ as joint_vae
from experiments.joint_vae import config as joint_config
from experiments.joint_vae import evaluation as joint_evaluation
from experiments.joint_vae import task as joint_vae_task

LEVELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
BITS = (LEVELS[:, :8, :8, :1] > 127).astype(np.uint8)
GREY = LEVELS[:, :8, :8, :1]


def initial(program, config, images):
    task = program.make_task(config, images, sharding.make_mesh(1))
    return jax.jit(task.init)(task.key_init, task.data)


@pytest.fixture(name="vq", scope="module")
def make_vq():
    settings = {**vq_presets.PRESETS["smoke"], "features": 2, "code_dim": 2, "crop": 4}
    config = vq_config.Config(**settings)
    images = data.load("patches")._replace(validation=LEVELS, test=LEVELS)
    state = initial(cifar_vq, config, images._replace(train=images.train[:300]))
    evaluator = vq_evaluation.Evaluator(config, images, sharding.make_mesh(1))
    return evaluator, (state.params, state.model_state)


@pytest.fixture(name="binary", scope="module")
def make_binary():
    config = BinaryConfig(**{**binary_presets.PRESETS["smoke"], "num_latents": 2})
    images = data.load("digits")
    state = initial(binary_vae, config, images)
    evaluator = binary_evaluation.Evaluator(config, images, sharding.make_mesh(1))
    return evaluator, (state.params, state.model_state)


@pytest.fixture(name="joint", scope="module")
def make_joint():
    config = joint_config.Config(**{**joint_config.PRESETS["smoke"], "discrete": "3,2"})
    images = joint_vae_task.prepare(config)
    state = initial(joint_vae, config, images)
    evaluator = joint_evaluation.Evaluator(config, images, sharding.make_mesh(1))
    return evaluator, (state.params, state.model_state)


@pytest.fixture(name="hierarchy", scope="module")
def make_hierarchy():
    settings = {**dvaepp_presets.PRESETS["smoke"], "global_latents": "normal", "local_groups": 0}
    config = dvaepp_config.Config(**settings)
    images = data.load("digits")
    state = initial(dvaepp, config, images)
    evaluator = dvaepp_evaluation.Evaluator(config, images, sharding.make_mesh(1))
    return evaluator, (state.params, state.model_state)


@pytest.mark.thorough
def test_bits_per_dim_count_the_dimensions_of_the_images(vq) -> None:
    evaluator, trained = vq
    for height, width in ((32, 32), (64, 32), (28, 28), (4, 4)):
        images = np.tile(LEVELS[:2], (1, 2, 1, 1))[:, :height, :width]
        results = evaluator.evaluate(*trained, images)
        nats = results.rate + results.distortion
        expected = nats / (height * width * 3) / np.log(2)
        np.testing.assert_allclose(results.bits_per_dim, expected, rtol=1e-6)
        # An untrained model codes by the training pixels' histogram, at 6 to 9 bits.
        assert (results.bits_per_dim > 6).all()
        assert (results.bits_per_dim < 9).all()
    assert evaluator.reconstruct(*trained, LEVELS[:2]).shape[1:] == (
        32,
        32,
        3,
    )


@pytest.mark.thorough
def test_arrays_of_a_device_are_evaluated_like_those_of_the_host(vq, binary) -> None:
    evaluator, trained = vq
    on_device = evaluator.evaluate(*trained, jnp.asarray(LEVELS[:2]))
    np.testing.assert_array_equal(on_device.rate, evaluator.evaluate(*trained, LEVELS[:2]).rate)
    evaluator, (params, model_state) = binary
    results = [
        evaluator.evaluate(params, model_state, bits, num_samples=2).elbo
        for bits in (BITS, jnp.asarray(BITS), BITS.astype(bool), BITS.astype(np.float64))
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (LEVELS / 255, r"uint8 levels 0..255, got float64 \(5, 32, 32, 3\).*np.round\(255"),
        (LEVELS.astype(np.int32), "uint8 levels 0..255, got int32"),
        (LEVELS[..., :1], r"shape \[N, H, W, 3\], got uint8 \(5, 32, 32, 1\)"),
        (LEVELS[0], r"got uint8 \(32, 32, 3\).*images\[None\]"),
        (LEVELS[:, :30], "multiples of 4.*crop or pad"),
        (LEVELS[:0], r"at least 1 image, got uint8 \(0, 32, 32, 3\)"),
    ],
)
def test_images_that_are_no_levels(vq, images, message) -> None:
    evaluator, trained = vq
    with pytest.raises(ValueError, match=message):
        evaluator.evaluate(*trained, images)
    with pytest.raises(ValueError, match=message):
        evaluator.reconstruct(*trained, images)
    if "multiples" not in message:
        with pytest.raises(ValueError, match=message):
            vq_evaluation.histogram_bits_per_dim(LEVELS, images)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GREY, r"pixels 0 or 1, got uint8 \(5, 8, 8, 1\) with a pixel of \d+; threshold"),
        (255 * BITS, "with a pixel of 255; threshold"),
        (GREY / 255, r"with a pixel of 0\.\d+; threshold"),
        (BITS[:0], "at least 1 image"),
    ],
)
def test_images_that_are_no_bits(binary, hierarchy, images, message) -> None:
    evaluator, trained = binary
    other, its_state = hierarchy
    for call in (
        lambda: evaluator.evaluate(*trained, images, num_samples=1),
        lambda: evaluator.reconstruct(*trained, images),
        lambda: other.evaluate(*its_state, images, num_samples=1),
        lambda: other.reconstruct(*its_state, images),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.thorough
def test_images_of_another_size(binary, hierarchy, joint) -> None:
    evaluator, trained = binary
    with pytest.raises(ValueError, match=r"the 64 pixels that the model.*got uint8 \(5, 4, 8, 1\)"):
        evaluator.evaluate(*trained, BITS[:, :4], num_samples=1)
    evaluator, trained = hierarchy
    with pytest.raises(ValueError, match=r"shape \[N, 8, 8, 1\], got uint8 \(5, 4, 8, 1\)"):
        evaluator.evaluate(*trained, BITS[:, :4], num_samples=1)
    evaluator, trained = joint
    for images, message in (
        (GREY[:, :4], r"shape \[N, 8, 8, 1\], got uint8 \(5, 4, 8, 1\)"),
        (GREY / 255, "uint8 levels 0..255, got float64"),
        (GREY[:0], "at least 1 image"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluator.evaluate(*trained, images)
        with pytest.raises(ValueError, match=message):
            evaluator.reconstruct(*trained, images)
    with pytest.raises(ValueError, match="uint8 levels"):
        joint_networks.as_float(GREY / 255)


def test_numbers_of_samples_and_of_images(vq, binary, hierarchy, joint) -> None:
    for name, call in (
        ("num_samples", lambda: binary[0].evaluate(*binary[1], BITS, num_samples=0)),
        ("num_images", lambda: binary[0].sample_prior(*binary[1], 0)),
        ("num_samples", lambda: hierarchy[0].evaluate(*hierarchy[1], BITS, num_samples=0)),
        ("num_images", lambda: hierarchy[0].sample_prior(*hierarchy[1], 0)),
        ("num_each", lambda: hierarchy[0].sample_prior(*hierarchy[1], 1, num_each=0)),
        ("num_images", lambda: joint[0].sample_prior(*joint[1], 0)),
        ("num_images", lambda: vq[0].sample_prior(*vq[1], 0)),
    ):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            call()
    with pytest.raises(ValueError, match="must be a multiple of num_each, got 3 and 2"):
        hierarchy[0].sample_prior(*hierarchy[1], 3, num_each=2)


@pytest.mark.thorough
def test_one_image_and_one_sample(vq, binary, hierarchy, joint) -> None:
    """An ELBO: the only weight is its own mean."""
    results = binary[0].evaluate(*binary[1], BITS[:1], num_samples=1)
    hierarchical = hierarchy[0].evaluate(*hierarchy[1], BITS[:1], num_samples=1)
    for values in (results.means(), hierarchical.means()):
        assert all(np.isfinite(value) for value in values.values())
    np.testing.assert_allclose(results.ess, 1, rtol=1e-6)
    np.testing.assert_array_equal(results.unit_variance, 0)
    for values in (
        vq[0].evaluate(*vq[1], LEVELS[:1]).means(),
        joint[0].evaluate(*joint[1], GREY[:1]).means(),
    ):
        assert all(np.isfinite(value).all() for value in values.values())


EVALUATION_MODULES = (vq_evaluation, binary_evaluation, joint_evaluation, dvaepp_evaluation)


@pytest.mark.thorough
def test_evaluators_have_one_shape(vq, binary, joint, hierarchy) -> None:
    """One constructor and one signature each; num_samples where samples are drawn.

    Labels, which only some models have, are left out.
    """
    names = lambda function: [n for n in inspect.signature(function).parameters if n != "labels"]
    for module in EVALUATION_MODULES:
        assert names(module.validator) == names(module.Evaluator) == ["config", "images", "mesh"]
    for evaluator, trained, images in (
        (*vq, LEVELS[:2]),
        (*binary, BITS[:2]),
        (*joint, GREY[:2]),
        (*hierarchy, BITS[:2]),
    ):
        arguments = names(evaluator.evaluate)
        assert arguments[:3] == ["params", "model_state", "images"]
        assert arguments[3:] in ([], ["num_samples"])
        more = dict.fromkeys(arguments[3:], 2)
        means = evaluator.evaluate(*trained, images, **more).means()
        assert {np.shape(value) for value in means.values()} == {()}
        assert names(evaluator.reconstruct) == ["params", "model_state", "images"]
        assert names(evaluator.sample_prior)[:3] == ["params", "model_state", "num_images"]
        for pictures in (
            evaluator.reconstruct(*trained, images),
            evaluator.sample_prior(*trained, len(images)),
        ):
            assert pictures.dtype == np.uint8
            assert pictures.shape == images.shape


def test_more_test_images_than_there_are_means_all() -> None:
    np.testing.assert_array_equal(evaluation.spread(BITS, 10**6), BITS)


def test_codes_and_labels_of_an_accuracy(joint) -> None:
    evaluator, (params, _) = joint
    config = evaluator._config
    good = np.array([[0, 1], [2, 0]]), np.array([1, 0])
    assert 0 <= joint_evaluation.accuracy(config, good, good) <= 1
    for bad, message in (
        ((good[0][:, :1], good[1]), r"codes \[N, 2\] and labels \[N\].*got int64 \(2, 1\)"),
        ((good[0], good[1][:1]), r"got int64 \(2, 2\) and int64 \(1,\)"),
        ((good[0] + 2, good[1]), r"integers in 0 .. 2.*got 2 to 4"),
        ((good[0], good[1] - 1), "labels of fit must be integers from 0 on, got.*from -1 on"),
        ((good[0], good[1] / 2), "labels of fit must be integers"),
        ((good[0][:0], good[1][:0]), "N at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            joint_evaluation.accuracy(config, bad, good)
    # One-hot vectors of codes out of range would be zeros, which are decoded without a word.
    h = np.zeros((2, 2))
    with pytest.raises(ValueError, match=r"codes\[:, 1\] must be integers in 0 .. 1.* got 0 to 2"):
        evaluator.decode(params, h, np.array([[0, 0], [0, 2]]))
    with pytest.raises(ValueError, match=r"codes must have the shape \(2, 2\), got int64 \(2, 1\)"):
        evaluator.decode(params, h, good[0][:, :1])
    with pytest.raises(ValueError, match=r"h must be floats, shape \[B, 2\]"):
        evaluator.decode(params, h[:, :1], good[0])


def test_parameters_of_several_seeds_have_an_axis_for_them(joint) -> None:
    evaluator, (params, _) = joint
    config = joint_config.Config(**{**joint_config.PRESETS["smoke"], "num_seeds": 3})
    with pytest.raises(ValueError, match="leading axis of that length, got float32"):
        evaluation.with_seed_axis(config, params)
    single = evaluation.with_seed_axis(evaluator._config, params)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(single)} == {1}


def test_networks_take_bits_as_floats() -> None:
    config = BinaryConfig(**binary_presets.PRESETS["smoke"])
    bind = lambda x: binary_model.bind(config.model(4), {}, np.zeros(4, np.float32), x)
    bind(np.ones((2, 4), np.float32))
    for x, message in (
        (np.ones((2, 4), np.uint8), "x must be floats, got uint8"),
        (np.ones((2, 3), np.float32), r"x must be floats, shape \[B, 4\]"),
        (np.full((2, 4), 0.5, np.float32), "x must be pixels 0 or 1.*a pixel of 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            bind(x)


def test_groups_fill_the_machine() -> None:
    prior = boltzmann_prior.init(BinaryConfig(num_groups=2, num_latents=2))
    with pytest.raises(ValueError, match=r"the machine has units, 2 \+ 2, got \[2, 1\]"):
        boltzmann.log_prob(prior, jnp.zeros(()), [jnp.zeros((3, 2)), jnp.zeros((3, 1))])
    config = dvaepp_config.Config(**dvaepp_presets.PRESETS["smoke"])
    with pytest.raises(ValueError, match="global_latents=rbm needs log_z"):
        dvaepp_latents.draw_globals(jax.random.key(0), config, lambda seen: None, prior, None)


def test_kinds_have_remedies() -> None:
    for kind, dtype, remedy in (
        (checks.LEVELS, float, r"images in \[0, 1\] become"),
        (checks.LEVELS, int, r"levels 0..255 of another dtype are cast"),
        (checks.UNIT, int, "levels become"),
    ):
        with pytest.raises(ValueError, match=f"; {remedy}"):
            evaluation.check_images(np.ones((1, 2), dtype), kind=kind, shape=(2,))
