"""What runs of `binary_vae` and `dvaepp` report alike: likelihoods, log Z, curves of bounds."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure

from dvae import analysis, rbm
from dvae.data import Dataset
from dvae.train import loop, sharding
from dvae.train.best import Best
from dvae.train.state import TrainState
from experiments.boltzmann.config import BoltzmannConfig
from experiments.boltzmann.evaluation import MIN_ESS, UNTRUSTED, Evaluation, reliable
from experiments.common import evaluation, records
from experiments.common import report as run_report
from experiments.common.config import LikelihoodConfig

E = TypeVar("E", bound=Evaluation)
Record = dict[str, Any]


def best_state(config: LikelihoodConfig, result: loop.Result) -> Best | TrainState:
    """Returns the state of the best step; without validations on the way that of the last one."""
    if not config.eval_interval:
        return result.state
    assert result.best is not None
    return result.best


def evaluate_sets(
    config: LikelihoodConfig,
    evaluate: Callable[..., E],
    state: Best | TrainState,
    images: Dataset,
    *,
    options: Callable[[str, np.ndarray], Mapping[str, Any]] = lambda name, chosen: {},
) -> dict[str, E]:
    """Evaluates a state on validation and test images.

    Args:
      config: how many images and samples.
      evaluate: the method of the program's evaluator.
      state: whose model it is.
      images: the data set.
      options: returns what `evaluate` is told beside, of the set's name and the images' indices.
    """
    counts = (config.num_validation_images or config.num_test_images, config.num_test_images)
    results = {}
    for name, count in zip(records.SETS, counts, strict=True):
        pixels = getattr(images, name)
        chosen = evaluation.spread_indices(len(pixels), count)
        results[name] = evaluate(
            state.params,
            state.model_state,
            pixels[chosen],
            num_samples=config.test_samples,
            **options(name, chosen),
        )
    return results


def summarize(
    config: LikelihoodConfig,
    machine: BoltzmannConfig | None,
    state: Best | TrainState,
    sets: Mapping[str, E],
    own: Callable[[E], Record],
) -> Record:
    """Returns the part of a summary that says how good the model is.

    Args:
      config: everything.
      machine: settings of a Boltzmann prior.
      state: whose model was evaluated.
      sets: name -> its evaluation; "test" is one of them.
      own: returns what the program says of a set, besides.
    """
    log_z = sets["test"].log_z
    return {
        "log_likelihood_is": (
            f"log of the mean of {config.test_samples} importance weights, in the binary limit; "
            "nats an image"
        ),
        **{name: _of_set(results) | own(results) for name, results in sets.items()},
        **(log_z_record(machine, log_z) if machine is not None and log_z is not None else {}),
        "evaluated_step": np.asarray(state.step).tolist(),
        "chosen_by": _chosen_by(config, machine, state),
    }


def _of_set(results: Evaluation) -> Record:
    """Numbers of one set of images; over several seeds also their mean and standard deviation."""
    nll = -results.log_likelihood.astype(np.float64)
    return {
        "num_images": nll.shape[1],
        **run_report.over_images("nll_nats", nll),
        **run_report.over_seeds("nll_nats", nll.mean(1)),
        "elbo_nats": records.per_seed(results.elbo.mean(1)),
        "effective_samples": records.per_seed(results.ess.mean(1)),
    }


def _chosen_by(
    config: LikelihoodConfig, machine: BoltzmannConfig | None, state: Best | TrainState
) -> str:
    """Says which step was evaluated."""
    if not config.eval_interval:
        return "last step"
    if machine is None:
        return "lowest validation nll"
    lowest = "lowest validation nll of steps whose log Z is to be trusted"
    untrusted = isinstance(state, Best) and np.any(np.asarray(state.value) >= UNTRUSTED)
    return f"{lowest}; the last validation where there is none" if untrusted else lowest


def log_z_record(machine: BoltzmannConfig, log_z: rbm.ais.LogZ) -> Record:
    """Returns what a summary says of log Z: its error, and when it is not to be trusted.

    Args:
      machine: settings of the Boltzmann prior.
      log_z: [S] each, or of every label [S, C].
    """
    value, error, ess = (np.asarray(x, np.float64) for x in log_z)
    of_labels = value.ndim > 1
    record: Record = {
        "nats": records.per_seed(value),
        "standard_error": records.per_seed(error),
        "effective_samples": records.per_seed(ess),
        "is": (
            f"{'one of each label, ' * of_labels}"
            f"annealed importance sampling, {machine.ais_temperatures} temperatures, "
            f"{machine.ais_chains} chains: too low in the mean, by about half the squared error, "
            "as the nll then is; the finite number of samples makes the nll too high"
        ),
    }
    if not np.all(reliable(machine, log_z)):
        record["warning"] = (
            f"fewer than {MIN_ESS:.0%} of the chains carry the estimate"
            f"{' of some label' * of_labels}: neither log Z nor any nll "
            "here is to be trusted; more --ais_temperatures help"
        )
    return {"log_z": record}


def rows(summary: Record, own: Callable[[Record], list[run_report.Row]]) -> list[run_report.Row]:
    """Returns the result for the terminal.

    Args:
      summary: the whole.
      own: returns the program's rows of a set of images.
    """
    config, test = summary["config"], summary["test"]
    samples = f"nats an image, {config['test_samples']} importance samples"
    lines: list[run_report.Row] = []
    for name in records.SETS:
        record = summary[name]
        lines += [
            (f"{name} nll", record["nll_nats"], samples),
            ("  -elbo", -np.asarray(record["elbo_nats"]), "nats, one sample"),
            *own(record),
        ]
    if len(summary["seeds"]) > 1:
        spread = [test[f"nll_nats{ending}"] for ending in records.OVER_SEEDS]
        lines.append(("over seeds", spread, "mean and standard deviation of the test nll"))
    if "log_z" in summary:
        kind, error, chains = "nats, annealed importance sampling", "nats, one standard error", ""
        if _has_labels(summary):
            kind, error, chains = f"{kind}, mean over labels", "nats, the largest", ", the fewest"
        of = lambda name, reduced: _of_seeds(summary, name, reduced)
        lines += [
            ("log Z", of("nats", np.mean), kind),
            ("  +-", of("standard_error", np.max), error),
            (
                "  samples",
                of("effective_samples", np.min),
                f"effective, of {config['ais_chains']}{chains}",
            ),
        ]
    return lines


def _has_labels(summary: Record) -> bool:
    """Tells whether log Z is one of each label."""
    return np.ndim(summary["log_z"]["nats"]) > (len(summary["seeds"]) > 1)


def _of_seeds(summary: Record, name: str, reduced: Callable[..., Any]) -> Any:
    """Returns a number of log Z, one a seed, of several labels reduced to one."""
    value = summary["log_z"][name]
    return reduced(value, axis=-1) if _has_labels(summary) else value


def warnings(summary: Record) -> list[str]:
    """Returns what a terminal should say of an estimate that is not to be trusted."""
    warning = summary.get("log_z", {}).get("warning")
    return [f"warning: {warning}"] if warning else []


def arrays(machine: BoltzmannConfig | None, state: Best | TrainState) -> dict[str, Any]:
    """Returns the file of an RBM: bias1, bias2 and weights, seeds first if several.

    As an edge list every machine is beside its model: `trained.MACHINE_FILES`.
    """
    if machine is None or machine.machine_graph:
        return {}
    return {records.PRIOR_FILE: sharding.fetch(state.params["prior"])._asdict()}


def curves(
    config: LikelihoodConfig,
    machine: BoltzmannConfig | None,
    workdir: Path,
    *,
    model: str,
    kl_warmup_steps: int,
) -> dict[str, Figure]:
    """Draws objective and validations against the steps; nothing where no step was recorded.

    Args:
      config: everything.
      machine: settings of a Boltzmann prior.
      workdir: of the run.
      model: what the legend calls it.
      kl_warmup_steps: of the objective.
    """
    steps, objective = records.read_curve(workdir, "train", "objective")
    if not len(steps):
        return {}
    # Why the curve of a training objective need not be that of a bound.
    caveats = []
    if kl_warmup_steps:
        caveats.append(f"KL weighted down until step {kl_warmup_steps:,}")
    if machine is not None:
        caveats.append(f"log Z of every {machine.log_z_interval:,} steps")
    label = f"{model}, objective" + (f" ({', '.join(caveats)})" if caveats else "")
    held_steps, elbo, nll = records.read_curve(workdir, "validation", "elbo", "nll")
    held_out = {
        f"{model}, ELBO": (held_steps, -elbo),
        f"{model}, {config.eval_samples} samples": (held_steps, nll),
    }
    figure = analysis.figures.learning_curve(
        {label: (steps, -objective)},
        held_out if len(held_steps) else None,
        unit="nats an image, negated",
    )
    return {"bounds": figure}
