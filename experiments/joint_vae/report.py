"""What a `joint_vae` run leaves behind: summary.json and its pictures."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure

from dvae import analysis
from dvae.analysis import codes as code_tables
from dvae.data import Dataset
from dvae.models import joint
from dvae.train import loop
from experiments.common import evaluation, records
from experiments.common import models as run_models
from experiments.common import report as run_report
from experiments.joint_vae import model as joint_model
from experiments.joint_vae import task
from experiments.joint_vae.config import CAPACITY, ELBO, Config
from experiments.joint_vae.evaluation import QUANTILES, Evaluation, Evaluator, accuracy

NUM_PICTURES = 16
_OBJECTIVE_IS = {
    CAPACITY: "E log p - gamma |KL - C| for either kind of variable, relaxed codes: bounds nothing",
    ELBO: "the ELBO with relaxed codes: bounds nothing",
}


def models(
    config: Config, result: loop.Result, images: Dataset, test: Mapping[str, Any]
) -> list[run_models.Trained]:
    """Returns the models of all seeds, with what the summary says of the test images."""
    shape = images.train.shape[1:]
    height, width, _ = shape
    resized = f"resized to {height} x {width} by a bilinear filter (data.resized)"
    return run_models.of_seeds(
        config,
        joint_model.functions(config, shape),
        lambda params, _: joint_model.arrays(params),
        result.state,
        images,
        test,
        preparation=resized if config.image_size else "",
    )


def report(
    config: Config, result: loop.Result, images: Dataset, workdir: Path, mesh: Mesh
) -> run_report.Report:
    """Evaluates the test set, and the training set where its labels name the codes."""
    evaluator = Evaluator(config, images, mesh)
    params, model_state = result.state.params, result.state.model_state
    held_out = evaluation.spread_indices(len(images.test), config.num_test_images)
    evaluate = lambda images: evaluator.evaluate(params, model_state, images)
    test_evaluation = evaluate(images.test[held_out])
    labels = fit = None
    if images.has_classes and images.test_labels is not None and config.discrete_sizes:
        # Classes of codes are those of all training images.
        fit, labels = evaluate(evaluator.train), images.test_labels[held_out]
    summary = summarize(
        config, result, images, test_evaluation, fit, labels, evaluator.train_labels
    )
    test = summary["test"]
    rows = []
    if "accuracy" in test:
        text = "test images whose code's class (by training images) is theirs"
        rows.append(("accuracy", test["accuracy"], text))
    rows += [
        ("distortion", test["distortion_nats"], "nats an image, cross entropy"),
        ("  rmse", test["rmse"], "of pixels in [0, 1]"),
        ("kl, continuous", np.sum(test["kl_continuous_nats"], -1), "nats an image"),
        ("kl, discrete", np.sum(test["kl_discrete_nats"], -1), "nats an image"),
    ]
    missing = "no accuracy: it needs integer labels of the data set, and a discrete variable"
    first, first_state = run_report.first_seed(config, (params, model_state))
    return run_report.Report(
        summary,
        f"{config.objective} on {images.name} ({summary['epochs']:g} epochs)",
        rows,
        draw=lambda: _pictures(
            config, first, first_state, images, workdir, evaluator, test_evaluation, labels
        ),
        notes=() if "accuracy" in test else (missing,),
        models=models(config, result, images, test),
    )


def summarize(
    config: Config,
    result: loop.Result,
    images: Dataset,
    test: Evaluation,
    fit: Evaluation | None,
    labels: np.ndarray | None,
    train_labels: np.ndarray | None,
) -> dict[str, Any]:
    """Returns the record of a finished run; several seeds give lists in their order."""
    per_seed = records.per_seed
    record: dict[str, Any] = {
        "num_images": test.distortion.shape[1],
        "distortion_nats": per_seed(test.distortion.mean(1)),
        "rmse": per_seed(np.sqrt(test.squared_error.mean(1))),
        "elbo_nats": per_seed(test.elbo.mean(1)),
        "kl_continuous_nats": per_seed(test.kl_continuous.mean(1)),
        "kl_discrete_nats": per_seed(test.kl_discrete.mean(1)),
    }
    of_run = run_report.of_run(config, result, result.state.params)
    training = {}
    if fit is not None and labels is not None and train_labels is not None:
        record |= _accuracies(config, test, fit, labels, train_labels)
        training = {"train": {"loss_nats": per_seed(_training_loss(config, fit, of_run["steps"]))}}
    height, width, _ = images.test.shape[1:]
    return {
        "dataset": images.name,
        "pixels": (
            f"levels in [0, 1] at {height}x{width}; distortion is their "
            "cross entropy, and with it the ELBO a log-likelihood's bound for binary pixels alone"
        ),
        "objective": config.objective,
        "training_objective": _OBJECTIVE_IS.get(
            config.objective, f"the ELBO with {config.kl_weight:g} KL: bounds nothing"
        ),
        "test": record,
        **training,
        "epochs": round(of_run["steps"] / (images.num_train // config.batch_size), 2),
        **of_run,
    }


def _training_loss(config: Config, fit: Evaluation, steps: int) -> np.ndarray:
    """Returns the negative objective [S] at the end, nats an image, at likeliest codes."""
    penalty = functools.partial(task.penalty, config, step=jnp.int32(steps))
    subtracted = [
        float(penalty(kl=joint.Divergences(*map(jnp.asarray, pair)))[0])
        for pair in zip(fit.kl_continuous, fit.kl_discrete, strict=True)
    ]
    return fit.distortion.mean(1) + np.array(subtracted)


def _accuracies(
    config: Config,
    test: Evaluation,
    fit: Evaluation,
    labels: np.ndarray,
    train_labels: np.ndarray,
) -> dict[str, Any]:
    """Accuracy of all codes together, and of each discrete variable where there are several."""

    def accuracies(variable: int | None) -> np.ndarray:
        pairs = zip(fit.codes, test.codes, strict=True)
        return np.array(
            [accuracy(config, (a, train_labels), (b, labels), variable) for a, b in pairs]
        )

    values = accuracies(None)
    record: dict[str, Any] = {"accuracy": records.per_seed(values)}
    num_variables = len(config.discrete_sizes)
    if num_variables > 1:
        each = np.stack([accuracies(j) for j in range(num_variables)], -1)
        record["accuracy_of_each_variable"] = records.per_seed(each)
    record |= run_report.over_seeds("accuracy", values)
    return record


def _pictures(
    config: Config,
    params: Any,
    model_state: Any,
    images: Dataset,
    workdir: Path,
    evaluator: Evaluator,
    test: Evaluation,
    labels: np.ndarray | None,
) -> dict[str, Figure]:
    """Draws the first seed's pictures."""
    figures, sizes, codes = analysis.figures, config.discrete_sizes, test.codes[0]
    originals = evaluation.spread(images.test, NUM_PICTURES)
    base = np.array([np.bincount(codes[:, j]).argmax() for j in range(len(sizes))], np.int32)
    reconstructions = evaluator.reconstruct(params, model_state, originals)
    samples = evaluator.sample_prior(params, model_state, 4 * NUM_PICTURES)
    pictures = {
        "reconstructions": figures.reconstructions(originals, reconstructions),
        "samples": figures.samples(samples),
        "traversals": figures.traversals(_traversals(config, evaluator, params, base, test)),
    }
    if labels is not None:
        num_classes = 1 + int(labels.max())
        pictures["confusion"] = figures.confusion_matrices(
            {
                f"discrete variable {j + 1}": code_tables.confusion(
                    codes[:, j], labels, num_codes=size, num_classes=num_classes
                )
                for j, size in enumerate(sizes)
            }
        )
    return pictures | _curves(config, workdir)


def _traversals(
    config: Config,
    evaluator: Evaluator,
    params: Any,
    base: np.ndarray,
    test: Evaluation,
) -> list[tuple[str, list[str], dict[str, np.ndarray]]]:
    """Blocks of `figures.traversals`: the continuous variables by their KL, and each discrete."""
    continuous, discrete = evaluator.traverse(params, base)
    kl_h, kl_c = test.kl_continuous[0].mean(0), test.kl_discrete[0].mean(0)
    quantiles = [f"{100 * q:.0f} %" for q in QUANTILES]
    rows = {f"h{i + 1}: {kl_h[i]:.2f} nats": continuous[i] for i in np.argsort(-kl_h)}
    blocks = [("continuous variables at quantiles of the prior", quantiles, rows)]
    for j, pictures in enumerate(discrete):
        numbers = [str(code) for code in range(config.discrete_sizes[j])]
        label = f"c{j + 1}: {kl_c[j]:.2f} nats"
        blocks.append(("discrete variable at its codes", numbers, {label: pictures}))
    return blocks


def _curves(config: Config, workdir: Path) -> dict[str, Any]:
    """Curves of training: the first seed's KL of every latent variable, and all seeds' distortion.

    The first continuous variable of one seed is not that of another.
    """
    figures = analysis.figures
    curves: dict[str, dict[str, Any]] = {"h": {}, "c": {}}
    for letter, kind, count in (
        ("h", "continuous", config.continuous),
        ("c", "discrete", len(config.discrete_sizes)),
    ):
        for i in range(count):
            name = f"kl_{kind}_{i + 1}"
            steps, kl = records.read_curve(workdir, "train", name, first_seed=True)
            if len(steps):
                curves[letter][f"{letter}{i + 1}"] = (steps, kl)
    if not any(curves.values()):
        return {}
    steps, distortion = records.read_curve(workdir, "train", "distortion")
    # Of one sample, as in training: less than it is at the mean of h and the likeliest classes.
    parts = ("elbo", "kl_continuous", "kl_discrete")
    read = [records.read_curve(workdir, "validation", name) for name in parts]
    held_steps, held = read[0][0], -sum(values for _, values in read)
    held_out = {config.objective: (held_steps, held)} if len(held_steps) else None
    return {
        "kl_per_dimension": figures.kl_per_dimension(curves["h"], curves["c"]),
        "learning_curve": figures.learning_curve(
            {config.objective: (steps, distortion)}, held_out, unit="distortion, nats an image"
        ),
    }
