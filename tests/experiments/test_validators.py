"""Which validation images the programs take."""

import types

import jax
import numpy as np
import pytest

from dvae import data
from experiments.binary_vae import evaluation as binary_evaluation
from experiments.binary_vae.config import Config as BinaryConfig
from experiments.cifar_vq import config as vq_config
from experiments.cifar_vq import evaluation as vq_evaluation
from experiments.code_prior import config as prior_config
from experiments.code_prior import evaluation as prior_evaluation
from experiments.common import evaluation
from experiments.dvaepp import config as dvaepp_config
from experiments.dvaepp import evaluation as dvaepp_evaluation
from experiments.joint_vae import config as joint_config
from experiments.joint_vae import evaluation as joint_evaluation


class Seen(Exception):
    """Tells which images an evaluator was given."""


class Watching:
    """Stands for the evaluator of any program."""

    def __init__(self, config, *_) -> None:
        self.train = self.train_labels = np.zeros(1)

    def evaluate(self, params, model_state, images, **options):
        raise Seen(images[:, 0, 0, 0].tolist())

    def rate(self, params, images):
        return self.evaluate(params, None, images)


@pytest.mark.parametrize(
    ("module", "config_class"),
    [
        (binary_evaluation, BinaryConfig),
        (vq_evaluation, vq_config.Config),
        (dvaepp_evaluation, dvaepp_config.Config),
        (joint_evaluation, joint_config.Config),
        (prior_evaluation, prior_config.Config),
    ],
    ids=lambda case: getattr(case, "program", ""),
)
def test_validations_take_images_from_all_over_the_set(monkeypatch, module, config_class) -> None:
    """A data set may be ordered by class, so that its beginning is of one kind."""
    monkeypatch.setattr(module, "Evaluator", Watching)
    numbered = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 8, 8, 1))
    images = data.load("digits")._replace(validation=numbered)
    state = types.SimpleNamespace(params=None, model_state=None)
    for count, numbers in ((4, [0, 3, 6, 9]), (10, [*range(10)]), (11, [*range(10)])):
        validate = module.validator(config_class(num_eval_images=count), images, None)
        with pytest.raises(Seen) as seen:
            validate(state)
        assert seen.value.args == (numbers,)


def test_a_seed_has_the_same_key_in_every_run() -> None:
    together = evaluation.seed_keys(BinaryConfig(seed=3, num_seeds=2))
    alone = evaluation.seed_keys(BinaryConfig(seed=4))
    found = [jax.random.key_data(key).tolist() for key in (*together, *alone)]
    expected = [jax.random.fold_in(jax.random.key(seed), 2) for seed in (3, 4, 4)]
    assert found == [jax.random.key_data(key).tolist() for key in expected]
