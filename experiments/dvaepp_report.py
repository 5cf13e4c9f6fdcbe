"""What a `dvaepp` run leaves behind: summary.json and its pictures."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dvae import analysis, bounds
from dvae.data import Dataset
from dvae.train import checkpoint, loop
from experiments import boltzmann_prior, dvaepp_evaluation, run_record
from experiments.dvaepp_config import BERNOULLI, BOLTZMANN, RBM, RBM_ROLFE, Config

NUM_PICTURES = 16
NUM_DRAWS, NUM_EACH = 16, 5  # of the global variables, and images of each (the paper's Fig. 4)
_GLOBAL = {RBM: "RBM", RBM_ROLFE: "RBM (Rolfe)", BERNOULLI: "Bernoulli"}


def write(
    config: Config, result: loop.Result, images: Dataset, workdir: Path, mesh: Mesh
) -> dict[str, Any]:
    """Evaluates validation and test sets, writes summary.json and PNGs, prints the result."""
    assert result.best is not None
    # Without a validation on the way there is nothing to choose from but the last step.
    chosen = result.best if config.eval_interval else result.state
    evaluator = dvaepp_evaluation.Evaluator(config, images.train.shape[1:], mesh)
    print(f"evaluating with {config.test_samples} samples an image", file=sys.stderr, flush=True)
    sets = {}
    for name, count in (
        ("validation", config.num_validation_images or config.num_test_images),
        ("test", config.num_test_images),
    ):
        pool = getattr(images, name)
        indices = run_record.spread_indices(len(pool), min(count or len(pool), len(pool)))
        sets[name] = evaluator.evaluate(
            chosen.params, chosen.model_state, pool[indices], num_samples=config.test_samples
        )
    summary = summarize(config, result, images, sets, evaluator.num_dims)
    checkpoint.write_json(workdir / run_record.SUMMARY_FILE, summary)
    # From the host: pictures of a few images are made on one device.
    params, model_state = jax.device_get((chosen.params, chosen.model_state))
    if config.global_latents in BOLTZMANN:
        np.savez(workdir / run_record.PRIOR_FILE, **params["prior"]._asdict())
    if config.num_seeds > 1:
        params, model_state = jax.tree.map(lambda x: x[0], (params, model_state))
    _draw(config, params, model_state, images, workdir, evaluator)
    print(_describe(summary, workdir))
    return summary


def kind(config: Config) -> str:
    """Names the row of Table 3."""
    return f"{_GLOBAL.get(config.global_latents, 'normal')} + {config.local_latents}"


def summarize(
    config: Config,
    result: loop.Result,
    images: Dataset,
    sets: dict[str, dvaepp_evaluation.Evaluation],
    num_dims: int,
) -> dict[str, Any]:
    """Returns the record of a finished run; several seeds give lists in their order."""
    assert result.best is not None
    step = result.best.step if config.eval_interval else result.state.step
    log_z = sets["test"].log_z
    return {
        "dataset": images.name,
        "latents": kind(config),
        "log_likelihood_is": (
            f"log of the mean of {config.test_samples} importance weights, in the binary limit; "
            "nats an image"
        ),
        **{name: _of_set(config, found, num_dims) for name, found in sets.items()},
        **(boltzmann_prior.log_z_record(config, log_z) if log_z is not None else {}),
        "evaluated_step": np.asarray(step).tolist(),
        "chosen_by": "lowest validation nll" if config.eval_interval else "last step",
        "num_steps": config.num_steps,
        "seeds": list(range(config.seed, config.seed + config.num_seeds)),
        "num_parameters": sum(x.size for x in jax.tree.leaves(result.state.params))
        // config.num_seeds,
        "hardware": run_record.describe_hardware(),
        "wall_seconds": round(result.seconds, 1),
        "versions": run_record.versions(),
        "config": dataclasses.asdict(config),
    }


def _of_set(config: Config, found: dvaepp_evaluation.Evaluation, num_dims: int) -> dict[str, Any]:
    """Numbers of one set of images; over several seeds also their mean and standard deviation."""
    log_likelihood = found.log_likelihood.astype(np.float64)
    num_images, nll = log_likelihood.shape[1], -log_likelihood.mean(1)
    error = log_likelihood.std(1, ddof=1) / np.sqrt(num_images)
    record = {
        "num_images": num_images,
        "nll": run_record.per_seed(nll),
        "nll_standard_error": run_record.per_seed(error),
        "elbo": run_record.per_seed(found.elbo.mean(1)),
        "kl_global": run_record.per_seed(found.kl[..., 0].mean(1)),
        "kl_local": run_record.per_seed(found.kl[..., 1:].mean(1)),
        "effective_samples": run_record.per_seed(found.ess.mean(1)),
    }
    if config.colored:
        bits = np.asarray(bounds.bits_per_dim(-nll, num_dims))
        record["bits_per_dim"] = run_record.per_seed(bits)
        record["bits_per_dim_is"] = "of the nll: an upper bound of -log2 p(x) a dimension"
    if len(nll) > 1:
        record["nll_mean_over_seeds"] = round(float(nll.mean()), 4)
        record["nll_standard_deviation_over_seeds"] = round(float(nll.std(ddof=1)), 4)
    return record


def _draw(
    config: Config,
    params: Any,
    model_state: Any,
    images: Dataset,
    workdir: Path,
    evaluator: dvaepp_evaluation.Evaluator,
) -> None:
    """Draws the first seed's pictures."""
    figures, name = analysis.figures, kind(config)
    originals = images.test[run_record.spread_indices(len(images.test), NUM_PICTURES)]
    levels = originals if config.colored else 255 * originals
    samples = evaluator.sample_prior(params, model_state, num_draws=NUM_DRAWS, num_each=NUM_EACH)
    pictures = {
        "reconstructions": figures.reconstructions(
            levels, evaluator.reconstruct(params, originals)
        ),
        "samples": figures.image_grid(
            samples,
            num_columns=2 * NUM_EACH,
            title=f"{NUM_EACH} in a row from one draw of the global variables",
        ),
    }

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        steps, values = run_record.read_curve(workdir, "train", name, first_seed=True)
        return steps, values

    if len(read("kl_global")[0]):
        local = {f"h{j}": read(f"kl_local_{j}") for j in range(1, config.local_groups + 1)}
        pictures["kl_per_group"] = figures.kl_per_dimension(local, {"global": read("kl_global")})
        steps, bound = run_record.read_curve(workdir, "train", "objective")
        held_steps, elbo, nll = run_record.read_curve(workdir, "validation", "elbo", "nll")
        held_out = {
            f"{name}, ELBO": (held_steps, -elbo),
            f"{name}, {config.eval_samples} samples": (held_steps, nll),
        }
        caveat = "KL weighted down in the warm-up" if config.kl_warmup_steps else ""
        label = f"{name}, objective" + (f" ({caveat})" if caveat else "")
        pictures["bounds"] = figures.learning_curve(
            {label: (steps, -bound)},
            held_out if len(held_steps) else None,
            unit="nats an image, negated",
        )
    for title, figure in pictures.items():
        figures.save(figure, workdir / f"{title}.png")


def _describe(summary: dict[str, Any], workdir: Path) -> str:
    """The result in a few lines for the terminal."""
    samples = summary["config"]["test_samples"]
    rows: list[tuple[str, Any, str]] = []
    for name in ("validation", "test"):
        record = summary[name]
        rows += [
            (f"{name} nll", record["nll"], f"nats an image, {samples} importance samples"),
            ("  -elbo", -np.asarray(record["elbo"]), "nats, one sample"),
            ("  kl, global", record["kl_global"], "nats"),
            ("  kl, local", np.sum(record["kl_local"], -1), "nats, all groups"),
        ]
        if "bits_per_dim" in record:
            rows.append(("  bits/dim", record["bits_per_dim"], "of the nll: a bound"))
    if "log_z" in summary:
        rows += boltzmann_prior.log_z_rows(summary)
    lines = [
        f"{label:<16}{' '.join(f'{v:.5g}' for v in np.atleast_1d(value)):>12}  {text}"
        for label, value, text in rows
    ]
    header = (
        f"{summary['latents']} on {summary['dataset']}: {summary['num_steps']} steps, seeds "
        f"{summary['seeds']}, evaluated at step {summary['evaluated_step']}, "
        f"{summary['wall_seconds']:.0f} s on {summary['hardware']}"
    )
    warning = summary.get("log_z", {}).get("warning")
    if warning:
        lines += ["", f"warning: {warning}"]
    pictures = ", ".join(sorted(p.name for p in workdir.glob("*.png")))
    return "\n".join(["", header, *lines, "", f"pictures in {workdir}: {pictures}"])
