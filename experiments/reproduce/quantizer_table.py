"""The table of all quantizers: what their codes cost under two priors, and what pixels cost then.

A run's codes are priced by the model's factorial prior, and by one that `code_prior` learned over
them. The distortion is that of both. Written are quantizers.md, quantizers.json, and
quantizers.png: rate against distortion of every quantizer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvae.analysis import figures, tables
from experiments import report
from experiments.cifar_vq import names
from experiments.common import records
from experiments.common import tables as result_tables
from experiments.common.groups import Group, Run, Summary, summaries_of
from experiments.common.merging import of_each_seed

PRIOR = "prior"  # of a run's summary: how the prior over its codes was learned
LEARNED_RATE = "learned_rate_nats"
SPEED = "images_per_second"  # of training, in the fastest interval between two records
_OF_PRIOR = ("network", "features", "num_layers", "num_steps")


def complete(summary: Summary, workdir: Path, prior_workdir: Path) -> Summary:
    """Adds to a run's summary its speed, and what its codes cost under the learned prior.

    Args:
      summary: of a run of `cifar_vq`.
      workdir: of that run.
      prior_workdir: of the run of `code_prior` over its codes; without one nothing is added.
    """
    _, speed = records.read_curve(workdir, "train", SPEED)
    summary = {**summary, SPEED: float(np.max(speed))} if len(speed) else dict(summary)
    if not (prior_workdir / records.SUMMARY_FILE).exists():
        return summary
    prior = records.read_summary(prior_workdir)
    told = {name: prior["config"][name] for name in _OF_PRIOR}
    steps = {"steps": prior["steps"]} if "steps" in prior else {}
    learned = {
        report.LEARNED: prior["test"]["bits_per_dim"],
        LEARNED_RATE: prior["test"]["rate_nats"],
    }
    return {
        **summary,
        "test": {**summary["test"], **learned},
        PRIOR: {**told, **steps, "wall_seconds": prior["wall_seconds"]},
    }


def num_codes(settings: Mapping[str, Any]) -> int:
    """Returns how many values the code of a position has, of all stages together."""
    stages = settings["num_stages"] if settings["estimator"] == names.RESIDUAL else 1
    return report.num_codes(settings) ** int(stages)


def row(group: Group) -> dict[str, object]:
    """Returns one row: the mean over seeds, and where it is of several their numbers."""
    summary, settings = group.summary, group.settings
    test = summary["test"]
    several = lambda name, form: " / ".join(form.format(x) for x in np.ravel(test.get(name, [])))
    mean = lambda name, form: form.format(np.mean(test[name])) if name in test else ""
    speeds = [run.summary[SPEED] for run in group.runs if SPEED in run.summary]
    return {
        "quantizer": settings["estimator"],
        "codes": _size(settings),
        "seeds": len(summary["seeds"]),
        "bits/dim": several("bits_per_dim", "{:.3f}"),
        "with a learned prior": several(report.LEARNED, "{:.3f}"),
        "rate": mean("rate_nats", "{:,.0f}"),
        "learned rate": mean(LEARNED_RATE, "{:,.0f}"),
        "distortion": mean("distortion_nats", "{:,.0f}"),
        "perplexity": mean("perplexity", "{:,.0f}"),
        "unused": mean("dead_codes", "{:,.0f}"),
        "images/s": f"{max(speeds):,.0f}" if speeds else "",
        "steps": records.steps(summary),
    }


def _size(settings: Mapping[str, Any]) -> str:
    """Writes the number of codes, and of what it is made."""
    if settings["estimator"] == names.FSQ:
        return f"{num_codes(settings):,} = {settings['levels'].replace(',', ' x ')}"
    if settings["estimator"] == names.RESIDUAL:
        return f"{num_codes(settings):,} = {settings['codebook_size']}^{settings['num_stages']}"
    return f"{num_codes(settings):,}"


def lay_out(groups: Sequence[Group]) -> str:
    """Returns the Markdown table."""
    rows = [row(group) for group in groups]
    return tables.markdown(tuple(rows[0]), [list(cells.values()) for cells in rows])


def points(groups: Sequence[Group]) -> dict[str, list[tuple[float, ...]]]:
    """Returns quantizer -> (rate, distortion) of its sizes in their order.

    Where priors were learned, theirs are the rates, those of the factorial priors come last, and
    runs without one are left out: their rates are of another kind.
    """
    found: dict[str, list[tuple[float, ...]]] = {}
    alike = [group for group in groups if LEARNED_RATE in group.summary["test"]] or groups
    for group in sorted(alike, key=lambda group: num_codes(group.settings)):
        test = group.summary["test"]
        mean = lambda name, test=test: float(np.mean(test[name]))
        factorial, distortion = mean("rate_nats"), mean("distortion_nats")
        priced = (
            (mean(LEARNED_RATE), distortion, factorial)
            if LEARNED_RATE in test
            else (factorial, distortion)
        )
        found.setdefault(group.settings["estimator"], []).append(priced)
    return found


def spread(groups: Sequence[Group]) -> float | None:
    """Returns the largest difference in bits/dim between two seeds of one row."""
    found = []
    for group in groups:
        if len(group.runs) > 1:
            bits = [x for run in group.runs for x in _bits(run)]
            found.append(max(bits) - min(bits))
    return max(found, default=None)


def _bits(run: Run) -> list[float]:
    name = report.LEARNED if report.LEARNED in run.summary["test"] else "bits_per_dim"
    return of_each_seed(run.summary, "test", name)


def write(groups: Sequence[Group], out: Path) -> str:
    """Writes table, records and picture into `out`; returns the Markdown of the table.

    Raises:
      ValueError: `out` cannot be written.
    """
    best = lambda group: float(np.mean([x for run in group.runs for x in _bits(run)]))
    groups = sorted(groups, key=best)
    text = lay_out(groups)
    summaries = summaries_of(groups)
    between = spread(groups)
    seeds = (
        ""
        if between is None
        else f"Two seeds of a row differ by {between:.3f} bits/dim at most: smaller differences "
        "between rows may be chance.\n"
    )
    notes = (
        "bits/dim: bound on test images, of each seed, with the model's factorial prior and with "
        "the learned one; rates and distortion in nats an image, their mean over seeds. "
        "Perplexity and unused codes: means over the codebooks of a position. images/s: training, "
        "the fastest interval between two records.\n"
        f"{seeds}{_priors(summaries)}{result_tables.hardware(summaries)}"
    )
    num_dims = summaries[0].get("num_dims")
    pictures = {"quantizers": figures.rate_distortion(points(groups), num_dims=num_dims)}
    whole = f"# All quantizers\n\n{text}\n\n{notes}\n\n![rate and distortion](quantizers.png)\n"
    result_tables.save(whole, summaries, "quantizers", out, pictures=pictures)
    return text


def _priors(summaries: Sequence[Summary]) -> str:
    """Says in a sentence how the priors were learned."""
    told = sorted(
        {
            f"{prior['network']}, {prior['num_layers']} layers of {prior['features']} features, "
            f"{records.steps(prior)} steps"
            for prior in (s[PRIOR] for s in summaries if PRIOR in s)
        }
    )
    return f"Learned priors: {'; '.join(told)}. " if told else ""
