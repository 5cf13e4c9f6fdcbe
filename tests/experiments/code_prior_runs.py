"""Runs whose model is small and untrained, and tiny priors for their codes."""

import dataclasses
import json

import jax
import numpy as np

import dvae
from dvae import trained
from experiments.cifar_vq import config as cifar_vq
from experiments.cifar_vq import model as cifar_vq_model
from experiments.code_prior import __main__ as code_prior
from experiments.code_prior.config import Config

RUN = dict(
    dataset="digits",
    image_size=8,
    codebook_size=4,
    num_latents=2,
    code_dim=2,
    features=2,
    num_residual_blocks=0,
)
TINY = dict(
    features=4,
    num_layers=1,
    batch_size=8,
    num_steps=4,
    log_interval=2,
    eval_interval=2,
    checkpoint_interval=2,
    num_eval_images=16,
    num_test_images=16,
    eval_batch_size=8,
)


def make_run(folder, estimator="gs_soft", seed=0):
    """A run's folder with a model of random parameters, and no training."""
    config = cifar_vq.Config(**RUN, estimator=estimator)
    folder.mkdir()
    record = {"program": "cifar_vq", **dataclasses.asdict(config)}
    (folder / "config.json").write_text(json.dumps(record))
    functions = cifar_vq_model.functions(config, (8, 8, 1))
    rng = np.random.default_rng(seed)
    draw = lambda x: (0.5 * rng.normal(size=x.shape)).astype(x.dtype)
    params = jax.tree.map(draw, functions.abstract_params())
    params["network"]["encoder"] = jax.tree.map(lambda x: 4 * x, params["network"]["encoder"])
    card = trained.Card("digits", seed=seed, step=9)
    trained.save(folder / "model", functions, params, card)
    return folder


def replace_model(run):
    """Puts another model into a run's folder, as further training does."""
    other = dvae.load(make_run(run.with_name("other"), seed=1))
    trained.save(run / "model", other.functions, other.params, trained.Card("digits", seed=1))


def config_of(run, workdir, **settings):
    return code_prior.of_run(Config(**{**TINY, **settings}, workdir=str(workdir)), run)
