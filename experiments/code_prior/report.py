"""What a `code_prior` run leaves behind: summary.json, the model with its prior, and pictures."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure

from dvae import analysis, trained
from dvae.data import Dataset
from dvae.train import distributed, lock, loop, status
from dvae.train.best import Best
from dvae.train.state import TrainState
from experiments.code_prior import model as prior_model
from experiments.code_prior.config import Config
from experiments.code_prior.evaluation import Evaluation, Evaluator
from experiments.common import evaluation, flags, records
from experiments.common import models as run_models
from experiments.common import report as run_report

NUM_PICTURES = 16
# Of a prior's record: the priors of a model go by the rate, where it is of the same images.
VALIDATION_RATE, VALIDATION_IMAGES = "validation_rate_nats", "validation_num_images"
LEARNED, FACTORIAL = "learned prior", "factorial prior"
_PATIENCE_SECONDS = 60.0  # for another prior to be handed over, which takes a moment
_POLL_SECONDS = 0.1


def summarize(
    config: Config,
    result: loop.Result,
    state: Best | TrainState,
    images: Dataset,
    sets: dict[str, Evaluation],
) -> dict[str, Any]:
    """Returns the record of a finished run; several seeds give lists in their order."""
    return {
        "dataset": images.name,
        "num_dims": images.test[0].size,
        "network": config.network,
        "bound": "discrete ELBO with hard codes: at least the negative log-likelihood",
        "rate_is": "E_q[log q(z|x) - log p(z)], the entropy of q exact, one draw of z an image",
        **{name: _of_set(of_set) for name, of_set in sets.items()},
        "evaluated_step": np.asarray(state.step).tolist(),
        **run_report.of_run(config, result, result.state.params),
    }


def _of_set(of_set: Evaluation) -> dict[str, Any]:
    """Numbers of one set of images."""
    return {
        "num_images": of_set.rate.shape[1],
        **run_report.over_images("bits_per_dim", of_set.bits_per_dim),
        **run_report.over_images("factorial_bits_per_dim", of_set.factorial_bits_per_dim),
        **run_report.rates("", of_set.rate, of_set.num_dims),
        **run_report.rates("factorial_", of_set.factorial_rate, of_set.num_dims),
        "distortion_nats": records.per_seed(of_set.distortion.mean(1)),
        **run_report.over_seeds("bits_per_dim", of_set.bits_per_dim.mean(1)),
    }


def report(
    config: Config, result: loop.Result, images: Dataset, workdir: Path, mesh: Mesh
) -> run_report.Report:
    """Evaluates validation and test images with both priors."""
    with flags.setup():  # the model's run may have trained on meanwhile, or be gone
        evaluator = Evaluator(config, mesh)
    state: Best | TrainState = result.state
    if config.eval_interval:
        assert result.best is not None
        state = result.best
    sets = {
        name: evaluator.evaluate(
            state.params, evaluation.spread(getattr(images, name), config.num_test_images)
        )
        for name in records.SETS
    }
    summary = summarize(config, result, state, images, sets)
    test = summary["test"]
    rows = [
        ("bits/dim", test["bits_per_dim"], "test, with the learned prior: a bound"),
        ("  factorial", test["factorial_bits_per_dim"], "the same with the model's own prior"),
        ("rate", test["rate_nats"], "nats an image: what the codes cost"),
        ("  factorial", test["factorial_rate_nats"], "the same with the model's own prior"),
        ("distortion", test["distortion_nats"], "nats an image: what pixels cost given the codes"),
        ("validation rate", summary["validation"]["rate_nats"], "nats an image"),
    ]
    first = run_report.first_seed(config, state.params)
    return run_report.Report(
        summary,
        f"{config.network} prior over the codes of {config.run_dir}",
        rows,
        draw=lambda: _pictures(first, workdir, evaluator, sets["validation"]),
        models=models(config, evaluator.model, state, images, summary),
    )


def models(
    config: Config,
    model: trained.Model,
    state: Best | TrainState,
    images: Dataset,
    summary: dict[str, Any],
) -> list[run_models.Trained]:
    """Returns the model with the priors of all seeds, with what the summary says of them."""
    made = run_models.of_seeds(
        config,
        prior_model.functions(config, model),
        lambda params, _: prior_model.arrays(model, params),
        state,
        images,
        {**summary["test"], **of_validation(summary["validation"])},
        preparation=model.info["images"]["preparation"],
    )
    license = model.info["license"]
    return [m._replace(card=dataclasses.replace(m.card, license=license)) for m in made]


def of_validation(numbers: dict[str, Any]) -> dict[str, Any]:
    """Returns what a prior's record has of its summary's validation images."""
    return {VALIDATION_RATE: numbers["rate_nats"], VALIDATION_IMAGES: numbers["num_images"]}


def hand_over(config: Config, workdir: Path, summary: dict[str, Any]) -> None:
    """Puts the best of the run's priors beside the model, unless there is a better one.

    Only rates of equally many validation images are compared. A prior that was judged on fewer
    than the one that is there never replaces it; one that was judged on more does. `dvae.load` of
    the model's run then samples with it.

    Args:
      config: of the finished run.
      workdir: of the run.
      summary: of the run.

    Raises:
      LockedError: the model's folder stays in use by another process.
      SystemExit: the model has changed meanwhile, or is gone; said in one line on stderr.
    """
    if not distributed.is_main():
        return
    with flags.setup():
        folder = trained.find(config.run_dir, seed=config.seed_of_model)
    # Of two priors that end together the second must see what the first has left.
    with _alone_in(folder):
        with flags.setup():
            prior_model.load(config)
        _hand_over(config, workdir, summary, folder)


def _hand_over(config: Config, workdir: Path, summary: dict[str, Any], folder: Path) -> None:
    rates = np.ravel(summary["validation"]["rate_nats"])
    best = int(rates.argmin())
    seed = summary["seeds"][best] if len(rates) > 1 else None
    there, num_images = _metrics_there(config, folder), summary["validation"]["num_images"]
    if there is not None:
        rate, images = there.get(VALIDATION_RATE, math.inf), there.get(VALIDATION_IMAGES, "other")
        if isinstance(images, int) and images > num_images:
            status.say(
                f"{folder} keeps its prior, which was judged on {images} validation images, and "
                f"this one on {num_images}: to compare them, learn it with "
                f"--num_test_images={images}"
            )
            return
        if images != num_images:
            status.say(
                f"the prior in {folder} was judged on {images} validation images, and this one on "
                f"{num_images}: it is replaced"
            )
        elif rate < rates[best]:
            status.say(
                f"{folder} keeps its prior, of {rate:.4f} nats on {images} validation images; this "
                f"one has {rates[best]:.4f}"
            )
            return
    learned = trained.load(workdir, seed=seed)
    functions, record = learned.functions, learned.info["prior"]
    assert isinstance(functions, trained.code_prior.Functions)
    names = ("dataset", "seed", "step", "metrics", "license")
    card = trained.Card(**{name: record[name] for name in names})
    trained.save_prior(folder, functions, learned.params, card)
    which = "" if not config.model_seed else f", seed={config.model_seed}"
    status.say(f"{folder} has this prior now: dvae.load({config.run_dir!r}{which}) samples with it")


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Holds the lock of a model's folder in this context, once it is free."""
    with contextlib.ExitStack() as stack:
        with status.phase(f"waiting for {folder}"):
            until = time.monotonic() + _PATIENCE_SECONDS
            while True:
                try:
                    stack.enter_context(lock.hold(folder))
                    break
                except lock.LockedError as error:
                    if time.monotonic() > until:
                        raise lock.LockedError(
                            f"{str(error).partition('; ')[0]}, for more than "
                            f"{_PATIENCE_SECONDS:.0f} s; this prior is learned, and the same "
                            "command hands it over once the folder is free"
                        ) from error
                time.sleep(_POLL_SECONDS)
        yield


def _metrics_there(config: Config, folder: Path) -> dict[str, Any] | None:
    """Returns the numbers of the prior in a model's folder; None: there is none of its codes."""
    try:
        record = trained.prior_record(folder)
    except trained.ModelError:
        return None
    metrics: dict[str, Any] = record["metrics"]
    return metrics if record["model_sha256"] == config.model_sha256 else None


def _pictures(
    params: Any, workdir: Path, evaluator: Evaluator, held_out: Evaluation
) -> dict[str, Figure]:
    """Draws samples of the first seed under both priors, and how the bound fell."""
    figures = analysis.figures
    pictures = {
        "samples": figures.samples(evaluator.sample_prior(params, 2 * NUM_PICTURES)),
        "samples_factorial": figures.samples(evaluator.sample_factorial(2 * NUM_PICTURES)),
    }
    steps, rate = records.read_curve(workdir, "train", "rate")
    if len(steps):
        held_steps, held_rate = records.read_curve(workdir, "validation", "rate")
        before = np.full(2, held_out.factorial_rate.mean())
        validation = {FACTORIAL: (np.array([0, steps[-1]]), before)}
        if len(held_steps):
            validation[LEARNED] = (held_steps, held_rate)
        pictures["learning_curve"] = figures.learning_curve(
            {LEARNED: (steps, rate)}, validation, unit="rate, nats an image"
        )
    return pictures
