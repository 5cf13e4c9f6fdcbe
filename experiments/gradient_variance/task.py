"""What `gradient_variance` does: it trains a small model and measures every estimator on it."""

import dataclasses
import functools
import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dvae import data, estimators
from experiments.binary_vae import names, objectives
from experiments.binary_vae import task as binary_vae
from experiments.common import records
from experiments.gradient_variance import categorical
from experiments.gradient_variance import measurement as gradient_measurement
from experiments.gradient_variance.config import (
    BOUND_SAMPLES,
    STEPS_PER_CALL,
    Case,
    Config,
    cases,
)
from experiments.gradient_variance.measurement import SIDES, Error, Loss, say

PyTree = Any
_PLACES = ("out", "data_dir")  # of this machine, of no use elsewhere
MEASUREMENT = 3  # the role that is folded into the seed's key, apart from those of a training


class Stage(NamedTuple):
    """Where everything is measured."""

    title: str
    network: PyTree
    elbo: float  # exact, nats an image
    exact: dict[str, np.ndarray]  # minus its gradient, by side
    # The same of the bound of several samples, where something estimates its gradient.
    bound: float | None = None
    exact_bound: dict[str, np.ndarray] | None = None

    def target(self, case: Case) -> dict[str, np.ndarray]:
        """Returns what a case estimates, by side."""
        if not case.of_bound:
            return self.exact
        assert self.exact_bound is not None
        return self.exact_bound


class Result(NamedTuple):
    """What was measured of one estimator at one stage."""

    errors: dict[str, Error]  # by side
    tuned: dict[str, float]  # settings that tuning found


class Measurement(NamedTuple):
    """Everything that was measured."""

    stages: list[Stage]
    results: dict[str, list[Result]]  # label of a case -> one a stage


def train(
    config: Config, images: data.Dataset, mesh: Mesh, pixel_mean: np.ndarray
) -> tuple[PyTree, PyTree]:
    """Returns the network at initialization and after the training."""
    if config.categorical:
        return categorical.train(config, images, mesh, pixel_mean)
    experiment = config.training()
    task = binary_vae.make_task(experiment, images, mesh, lambda _: {})
    train_state = jax.jit(task.init)(task.key_init, task.data)
    first = jax.device_get(train_state.params["network"])
    steps = jax.jit(task.call(STEPS_PER_CALL))
    for _ in range(0, config.train_steps, STEPS_PER_CALL):
        train_state, metrics = steps(train_state, task.data, task.key_train)
        objective = float(metrics["objective"].mean())
        say(f"step {int(train_state.step):,}: objective {objective:.2f} nats")
    return first, jax.device_get(train_state.params["network"])


def loss_of(config: Config, num_pixels: int, settings: dict[str, Any]) -> Loss:
    """Returns the loss of the model by the estimator of some settings."""
    if config.categorical:
        return categorical.loss_fn(config, num_pixels, settings)
    return binary_vae.loss_fn(config.experiment(**settings), num_pixels)


def measure(config: Config, images: data.Dataset, mesh: Mesh) -> Measurement:
    """Trains the model and measures every estimator before and after."""
    dynamic = images.binarization == "dynamic"
    pixels = images.train.reshape(len(images.train), -1)
    num_pixels = pixels.shape[1]
    pixel_mean = (pixels.mean(0, dtype=np.float64) / (255 if dynamic else 1)).astype(np.float32)
    root = jax.random.fold_in(jax.random.key(config.seed), MEASUREMENT)
    key_batch, key_cases = jax.random.split(root)
    # On the host: the draws are made on one device.
    x = jax.device_get(
        binary_vae.draw_fn(config.experiment(), dynamic, mesh, len(pixels))(
            key_batch, pixels, jnp.int32(0)
        )
    )
    # Image by image: enough of them would be refused.
    one = dataclasses.replace(config, batch_size=1)
    by_enumeration = loss_of(one, num_pixels, {"estimator": names.EXACT})
    exact = jax.jit(gradient_measurement.exact_fn(by_enumeration))
    stages = []
    titles = ("at initialization", f"after {config.train_steps:,} steps")
    exact_bound = jax.jit(gradient_measurement.exact_bound_fn(config.experiment(), num_pixels))
    for title, network in zip(titles, train(config, images, mesh, pixel_mean), strict=True):
        at = {"network": network}, {"mean": pixel_mean, "batch_stats": {}, "signal": ()}, x
        elbo, gradient = exact(*at)
        stage = Stage(title, network, float(elbo), jax.device_get(gradient))
        say(f"{title}: exact ELBO {float(elbo):.3f} nats an image")
        if any(case.of_bound for case in cases(config)):
            bound, gradient = exact_bound(*at)
            stage = stage._replace(bound=float(bound), exact_bound=jax.device_get(gradient))
            say(f"{title}: exact bound of {BOUND_SAMPLES} samples {float(bound):.3f}")
        stages.append(stage)
    results = {}
    for case in cases(config):
        start = time.monotonic()
        # Not by its place, so that a choice of estimators does not change their numbers.
        key_case = jax.random.fold_in(key_cases, zlib.crc32(case.label.encode()))
        results[case.label] = measure_case(config, case, stages, pixel_mean, x, key_case)
        say(f"{case.label}: {time.monotonic() - start:.1f} s")
    return Measurement(stages, results)


@functools.cache
def compiled(
    config: Config, num_pixels: int, settings: tuple[tuple[str, Any], ...]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns `tune_fn` and `draw_fn`, jitted once for cases that differ in neither."""
    loss = loss_of(config, num_pixels, dict(settings))
    tune = gradient_measurement.tune_fn(loss, config.tune_steps)
    return jax.jit(tune), jax.jit(gradient_measurement.draw_fn(loss, config.num_draws))


def measure_case(
    config: Config,
    case: Case,
    stages: list[Stage],
    pixel_mean: np.ndarray,
    x: np.ndarray,
    key: jax.Array,
) -> list[Result]:
    """Measures one estimator at every stage."""
    name, size = case.settings["estimator"], len(pixel_mean)
    tune, draw = compiled(config, size, tuple(sorted(case.settings.items())))
    results = []
    for stage, key_stage in zip(stages, jax.random.split(key, len(stages)), strict=True):
        key_init, key_tune, key_draw = jax.random.split(key_stage, 3)
        params = {"network": stage.network}
        if not config.categorical:
            experiment = config.experiment(**case.settings)
            params |= objectives.init_auxiliary(key_init, experiment, size, stage.network)
        signal = estimators.nvil_init() if name in names.LEARNED_BASELINE else ()
        model_state: PyTree = {"mean": pixel_mean, "batch_stats": {}, "signal": signal}
        tuned: dict[str, float] = {}
        if case.tuned:
            params, model_state = tune(params, model_state, x, key_tune)
            if "control" in params:
                control = params["control"]
                scalars = [name for name in ("eta", "scale") if name in control]
                tuned |= {name: float(control[name]) for name in scalars}
                if "log_temperature" in control:
                    tuned["temperature"] = float(jnp.exp(control["log_temperature"]))
            else:
                tuned["scale"] = max(1.0, float(model_state["signal"].variance) ** 0.5)
                if not case.rescaled:
                    signal = model_state["signal"]._replace(variance=jnp.ones(()))
                    model_state, tuned = {**model_state, "signal": signal}, {"scale": 1.0}
        target = stage.target(case)
        sums = draw(params, model_state, x, target, key_draw)
        errors = {
            side: gradient_measurement.summarize(means, variances, target[side])
            for side, (means, variances) in sums.items()
        }
        results.append(Result(errors, tuned))
    return results


def record(config: Config, measurement: Measurement, seconds: float) -> dict[str, Any]:
    """Returns everything as values for JSON."""
    digits = lambda values: {name: float(f"{value:.6g}") for name, value in values.items()}
    stages = [
        {
            "title": stage.title,
            "elbo": round(stage.elbo, 4),
            **({} if stage.bound is None else {"bound_of_two": round(stage.bound, 4)}),
            "exact_gradient_norm": digits(
                {side: np.linalg.norm(stage.exact[side]) for side in SIDES}
            ),
        }
        for stage in measurement.stages
    ]
    rows = [
        {
            "label": case.label,
            "path": case.path,
            "settings": case.settings,
            "decoder_evaluations": case.evaluations,
            "stages": [
                {
                    **{side: digits(result.errors[side]._asdict()) for side in SIDES},
                    "tuned": digits(result.tuned),
                }
                for result in measurement.results[case.label]
            ],
        }
        for case in cases(config)
    ]
    usual = dataclasses.replace(config, train_estimator="")
    flags = [
        f" --{field.name}={getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if field.name not in _PLACES
        and getattr(config, field.name) != (field.default or getattr(usual, field.name))
    ]
    return {
        "command": "python -m experiments.gradient_variance" + "".join(flags),
        "config": dataclasses.asdict(config) | dict.fromkeys(_PLACES, ""),
        "stages": stages,
        "estimators": rows,
        "hardware": records.describe_hardware(),
        "wall_seconds": round(seconds, 1),
        "versions": records.versions(),
    }
