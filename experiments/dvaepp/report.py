"""What a `dvaepp` run leaves behind: summary.json and its pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure

from dvae import analysis, bounds
from dvae.data import Dataset
from dvae.train import loop, sharding
from experiments.boltzmann import prior as boltzmann_prior
from experiments.common import evaluation, records
from experiments.common import report as run_report
from experiments.dvaepp.config import BERNOULLI, BOLTZMANN, RBM, RBM_ROLFE, Config
from experiments.dvaepp.evaluation import Evaluation, Evaluator

NUM_PICTURES = 16
NUM_DRAWS, NUM_EACH = 16, 5  # of the global variables, and images of each (the paper's Fig. 4)
_GLOBAL = {RBM: "RBM", RBM_ROLFE: "RBM (Rolfe)", BERNOULLI: "Bernoulli"}


def report(
    config: Config, result: loop.Result, images: Dataset, workdir: Path, mesh: Mesh
) -> run_report.Report:
    """Evaluates validation and test sets; a Boltzmann prior is written to prior.npz."""
    assert result.best is not None
    # Without a validation on the way there is nothing to choose from but the last step.
    chosen = result.best if config.eval_interval else result.state
    evaluator = Evaluator(config, images.train.shape[1:], mesh)
    sets = {}
    for name, count in (
        ("validation", config.num_validation_images or config.num_test_images),
        ("test", config.num_test_images),
    ):
        held_out = evaluation.spread(getattr(images, name), count)
        sets[name] = evaluator.evaluate(
            chosen.params, chosen.model_state, held_out, num_samples=config.test_samples
        )
    summary = summarize(config, result, images, sets, evaluator.num_dims)
    arrays = {}
    if config.global_latents in BOLTZMANN:
        arrays[records.PRIOR_FILE] = sharding.fetch(chosen.params["prior"])._asdict()
    params, model_state = run_report.first_seed(config, (chosen.params, chosen.model_state))
    return run_report.Report(
        summary,
        f"{summary['latents']} on {images.name}",
        _rows(summary),
        draw=lambda: _pictures(config, params, model_state, images, workdir, evaluator),
        notes=boltzmann_prior.log_z_warnings(summary),
        arrays=arrays,
    )


def _rows(summary: dict[str, Any]) -> list[run_report.Row]:
    """The result for the terminal."""
    samples = summary["config"]["test_samples"]
    rows: list[run_report.Row] = []
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
    return rows


def kind(config: Config) -> str:
    """Names the row of Table 3."""
    return f"{_GLOBAL.get(config.global_latents, 'normal')} + {config.local_latents}"


def summarize(
    config: Config,
    result: loop.Result,
    images: Dataset,
    sets: dict[str, Evaluation],
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
        **run_report.of_run(config, result, result.state.params),
    }


def _of_set(config: Config, found: Evaluation, num_dims: int) -> dict[str, Any]:
    """Numbers of one set of images; over several seeds also their mean and standard deviation."""
    record = {
        **run_report.of_log_likelihood(found.log_likelihood),
        "elbo": records.per_seed(found.elbo.mean(1)),
        "kl_global": records.per_seed(found.kl[..., 0].mean(1)),
        "kl_local": records.per_seed(found.kl[..., 1:].mean(1)),
        "effective_samples": records.per_seed(found.ess.mean(1)),
    }
    if config.colored:
        mean = found.log_likelihood.astype(np.float64).mean(1)
        bits = np.asarray(bounds.bits_per_dim(mean, num_dims))
        record["bits_per_dim"] = records.per_seed(bits)
        record["bits_per_dim_is"] = "of the nll: an upper bound of -log2 p(x) a dimension"
    return record


def _pictures(
    config: Config,
    params: Any,
    model_state: Any,
    images: Dataset,
    workdir: Path,
    evaluator: Evaluator,
) -> dict[str, Figure]:
    """Draws the first seed's pictures."""
    figures, name = analysis.figures, kind(config)
    originals = evaluation.spread(images.test, NUM_PICTURES)
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
        steps, values = records.read_curve(workdir, "train", name, first_seed=True)
        return steps, values

    if len(read("kl_global")[0]):
        local = {f"h{j}": read(f"kl_local_{j}") for j in range(1, config.local_groups + 1)}
        pictures["kl_per_group"] = figures.kl_per_dimension(local, {"global": read("kl_global")})
        steps, bound = records.read_curve(workdir, "train", "objective")
        held_steps, elbo, nll = records.read_curve(workdir, "validation", "elbo", "nll")
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
    return pictures
