"""What a `joint_vae` run leaves behind: summary.json and its pictures."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dvae import analysis
from dvae.analysis import codes as code_tables
from dvae.data import Dataset
from dvae.train import checkpoint, loop
from experiments import joint_evaluation, run_record
from experiments.joint_config import CAPACITY, ELBO, Config

NUM_PICTURES = 16
_OBJECTIVE_IS = {
    CAPACITY: "E log p - gamma |KL - C| for either kind of variable, relaxed codes: bounds nothing",
    ELBO: "the ELBO with relaxed codes: bounds nothing",
}


def write(
    config: Config, result: loop.Result, images: Dataset, workdir: Path, mesh: Mesh
) -> dict[str, Any]:
    """Evaluates training and test sets, writes summary.json and PNGs, prints the result."""
    evaluator = joint_evaluation.Evaluator(config, images, mesh)
    params = result.state.params
    count = min(config.num_test_images or len(images.test), len(images.test))
    chosen = run_record.spread_indices(len(images.test), count)
    test = evaluator.evaluate(params, images.test[chosen])
    labels = fit = None
    if images.test_labels is not None and config.discrete_sizes:
        # Classes of codes are those of all training images.
        fit, labels = evaluator.evaluate(params, images.train), images.test_labels[chosen]
    summary = summarize(config, result, images, test, fit, labels)
    checkpoint.write_json(workdir / run_record.SUMMARY_FILE, summary)
    _draw(config, params, images, workdir, evaluator, test, labels)
    print(_describe(summary, workdir))
    return summary


def summarize(
    config: Config,
    result: loop.Result,
    images: Dataset,
    test: joint_evaluation.Evaluation,
    fit: joint_evaluation.Evaluation | None,
    labels: np.ndarray | None,
) -> dict[str, Any]:
    """Returns the record of a finished run; several seeds give lists in their order."""
    per_seed = run_record.per_seed
    means = test.means()
    record: dict[str, Any] = {
        "num_images": test.distortion.shape[1],
        "distortion_nats_per_image": per_seed(means["distortion"]),
        "rmse_of_pixels": per_seed(means["rmse"]),
        "elbo_nats_per_image": per_seed(means["elbo"]),
        "kl_continuous_nats": per_seed(test.kl_continuous.mean(1)),
        "kl_discrete_nats": per_seed(test.kl_discrete.mean(1)),
    }
    if fit is not None and labels is not None:
        record |= _accuracies(config, images, test, fit, labels)
    return {
        "dataset": images.name,
        "pixels": (
            f"levels in [0, 1] at {config.image_size}x{config.image_size}; distortion is their "
            "cross entropy, and with it the ELBO a log-likelihood's bound for binary pixels alone"
        ),
        "objective": config.objective,
        "training_objective": _OBJECTIVE_IS.get(
            config.objective, f"the ELBO with {config.kl_weight:g} KL: bounds nothing"
        ),
        "test": record,
        "num_steps": config.num_steps,
        "epochs": round(config.num_steps / (len(images.train) // config.batch_size), 2),
        "seeds": list(range(config.seed, config.seed + config.num_seeds)),
        "num_parameters": sum(x.size for x in jax.tree.leaves(result.state.params))
        // config.num_seeds,
        "hardware": run_record.describe_hardware(),
        "wall_seconds": round(result.seconds, 1),
        "versions": run_record.versions(),
        "config": dataclasses.asdict(config),
    }


def _accuracies(
    config: Config,
    images: Dataset,
    test: joint_evaluation.Evaluation,
    fit: joint_evaluation.Evaluation,
    labels: np.ndarray,
) -> dict[str, Any]:
    """Accuracy of all codes together, and of each discrete variable where there are several."""
    assert images.train_labels is not None
    train_labels = images.train_labels

    def accuracies(variable: int | None) -> np.ndarray:
        pairs = zip(fit.codes, test.codes, strict=True)
        return np.array(
            [
                joint_evaluation.accuracy(config, (a, train_labels), (b, labels), variable)
                for a, b in pairs
            ]
        )

    values = accuracies(None)
    record: dict[str, Any] = {"accuracy": run_record.per_seed(values)}
    num_variables = len(config.discrete_sizes)
    if num_variables > 1:
        each = np.stack([accuracies(j) for j in range(num_variables)], -1)
        record["accuracy_of_each_variable"] = run_record.per_seed(each)
    if len(values) > 1:
        record["accuracy_mean_over_seeds"] = round(float(values.mean()), 4)
        record["accuracy_standard_deviation_over_seeds"] = round(float(values.std(ddof=1)), 4)
    return record


def _draw(
    config: Config,
    params: Any,
    images: Dataset,
    workdir: Path,
    evaluator: joint_evaluation.Evaluator,
    test: joint_evaluation.Evaluation,
    labels: np.ndarray | None,
) -> None:
    """Draws the first seed's pictures."""
    # From the host: pictures of a few images are made on one device.
    params = jax.device_get(params)
    if config.num_seeds > 1:
        params = jax.tree.map(lambda x: x[0], params)
    figures, sizes, codes = analysis.figures, config.discrete_sizes, test.codes[0]
    originals = images.test[run_record.spread_indices(len(images.test), NUM_PICTURES)]
    base = np.array([np.bincount(codes[:, j]).argmax() for j in range(len(sizes))], np.int32)
    pictures = {
        "reconstructions": figures.reconstructions(
            originals, evaluator.reconstruct(params, originals)
        ),
        "samples": figures.samples(evaluator.sample_prior(params, 4 * NUM_PICTURES)),
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
    pictures |= _curves(config, workdir)
    for title, figure in pictures.items():
        figures.save(figure, workdir / f"{title}.png")


def _traversals(
    config: Config,
    evaluator: joint_evaluation.Evaluator,
    params: Any,
    base: np.ndarray,
    test: joint_evaluation.Evaluation,
) -> list[tuple[str, list[str], dict[str, np.ndarray]]]:
    """Blocks of `figures.traversals`: the continuous variables by their KL, and each discrete."""
    continuous, discrete = evaluator.traverse(params, base)
    kl_h, kl_c = test.kl_continuous[0].mean(0), test.kl_discrete[0].mean(0)
    quantiles = [f"{100 * q:.0f} %" for q in joint_evaluation.QUANTILES]
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
            steps, kl = run_record.read_curve(workdir, "train", name, first_seed=True)
            if len(steps):
                curves[letter][f"{letter}{i + 1}"] = (steps, kl)
    if not any(curves.values()):
        return {}
    steps, distortion = run_record.read_curve(workdir, "train", "distortion")
    held_steps, held = run_record.read_curve(workdir, "validation", "distortion")
    held_out = {config.objective: (held_steps, held)} if len(held_steps) else None
    return {
        "kl_per_dimension": figures.kl_per_dimension(curves["h"], curves["c"]),
        "learning_curve": figures.learning_curve(
            {config.objective: (steps, distortion)}, held_out, unit="distortion, nats an image"
        ),
    }


def _describe(summary: dict[str, Any], workdir: Path) -> str:
    """The result in a few lines for the terminal."""
    test = summary["test"]
    rows = []
    if "accuracy" in test:
        text = "test images whose code's class (by training images) is theirs"
        rows.append(("accuracy", test["accuracy"], text))
    rows += [
        ("distortion", test["distortion_nats_per_image"], "nats an image, cross entropy"),
        ("  rmse", test["rmse_of_pixels"], "of pixels in [0, 1]"),
        ("kl, continuous", np.sum(test["kl_continuous_nats"], -1), "nats an image"),
        ("kl, discrete", np.sum(test["kl_discrete_nats"], -1), "nats an image"),
    ]
    lines = [
        f"{label:<16}{' '.join(f'{v:.4g}' for v in np.atleast_1d(value)):>12}  {text}"
        for label, value, text in rows
    ]
    if "accuracy" not in test:
        lines.append("no accuracy: the data set has no labels, or the model no discrete variable")
    header = (
        f"{summary['objective']} on {summary['dataset']}: {summary['num_steps']} steps "
        f"({summary['epochs']:g} epochs), seeds {summary['seeds']}, "
        f"{summary['wall_seconds']:.0f} s on {summary['hardware']}"
    )
    pictures = ", ".join(sorted(p.name for p in workdir.glob("*.png")))
    return "\n".join(["", header, *lines, "", f"pictures in {workdir}: {pictures}"])
