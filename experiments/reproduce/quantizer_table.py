"""The table of all quantizers: what their codes cost under two priors, and what pixels cost then.

A run's codes are priced by the model's factorial prior, and by one that `code_prior` learned over
them. The distortion is that of both. Written are quantizers.md, quantizers.json, and
quantizers.png: rate against distortion of every quantizer.
"""

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvae.analysis import figures, tables
from experiments import report
from experiments.cifar_vq import names
from experiments.common import records
from experiments.common import tables as result_tables
from experiments.common.groups import Group, Summary, summaries_of
from experiments.reproduce import code_priors

PRIOR = "prior"  # of a run's summary: how the prior over its codes was learned
LEARNED_RATE = "learned_rate_nats"
SPEED = "images_per_second"  # of training, in the fastest interval between two records
_MARKS = [f"({letter})" for letter in string.ascii_lowercase]  # of machines
_OF_PRIOR = ("network", "features", "num_layers", "num_steps")


def complete(summary: Summary, workdir: Path) -> Summary:
    """Adds to a run's summary its speed, and what its codes cost under a prior learned over them.

    Args:
      summary: of a run of `cifar_vq`.
      workdir: of that run; without a prior over its codes beside it, none is added.
    """
    _, speed = records.read_curve(workdir, "train", SPEED)
    summary = {**summary, SPEED: float(np.max(speed))} if len(speed) else dict(summary)
    prior = code_priors.read(workdir, summary)
    if prior is None:
        return summary
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
    return report.num_codes(settings) ** _stages(settings)


def _stages(settings: Mapping[str, Any]) -> int:
    return int(settings["num_stages"]) if settings["estimator"] == names.RESIDUAL else 1


def row(group: Group, machines: Sequence[str] = ()) -> dict[str, object]:
    """Returns one row: the mean over seeds, and where it is of several their numbers.

    Args:
      group: of the row's runs.
      machines: of the whole table; speeds are marked by theirs if there are several.
    """
    summary, settings = group.summary, group.settings
    test = summary["test"]
    several = lambda name, form: " / ".join(form.format(x) for x in np.ravel(test.get(name, [])))
    mean = lambda name, form: form.format(np.mean(test[name])) if name in test else ""
    of_codebook = f" of {report.num_codes(settings)}, a stage" if _stages(settings) > 1 else ""
    count = lambda name: f"{_count(float(np.mean(test[name])))}{of_codebook}"
    return {
        "quantizer": settings["estimator"],
        "codes": _size(settings),
        "seeds": len(summary["seeds"]),
        "bits/dim": several("bits_per_dim", "{:.3f}"),
        "with a learned prior": several(report.LEARNED, "{:.3f}"),
        "rate": mean("rate_nats", "{:,.0f}"),
        "learned rate": mean(LEARNED_RATE, "{:,.0f}"),
        "distortion": mean("distortion_nats", "{:,.0f}"),
        "perplexity": count("perplexity"),
        "unused": count("dead_codes"),
        "images/s": _speed(group, machines),
        "steps": records.steps(summary),
    }


def _size(settings: Mapping[str, Any]) -> str:
    """Writes the number of codes, and of what it is made."""
    if settings["estimator"] == names.FSQ:
        return f"{num_codes(settings):,} = {settings['levels'].replace(',', ' x ')}"
    if settings["estimator"] == names.RESIDUAL:
        return f"{num_codes(settings):,} = {settings['codebook_size']}^{settings['num_stages']}"
    return f"{num_codes(settings):,}"


def _count(mean: float) -> str:
    """Writes the mean of counts, whose tenths matter where they are few."""
    return f"{mean:,.0f}" if mean >= 10 or mean.is_integer() else f"{mean:.1f}"


def _speed(group: Group, machines: Sequence[str]) -> str:
    """Writes the speed of the fastest run, with the mark of its machine if there are several."""
    timed = [run.summary for run in group.runs if SPEED in run.summary]
    if not timed:
        return ""
    fastest = max(timed, key=lambda summary: summary[SPEED])
    mark = f" {_MARKS[machines.index(fastest['hardware'])]}" if len(machines) > 1 else ""
    return f"{fastest[SPEED]:,.0f}{mark}"


def _machines(summaries: Sequence[Summary]) -> list[str]:
    return sorted({summary["hardware"] for summary in summaries})


def lay_out(groups: Sequence[Group]) -> str:
    """Returns the Markdown table."""
    machines = _machines(summaries_of(groups))
    rows = [row(group, machines) for group in groups]
    return tables.markdown(tuple(rows[0]), [list(cells.values()) for cells in rows])


def points(groups: Sequence[Group]) -> dict[str, list[tuple[float, ...]]]:
    """Returns quantizer -> (rate, distortion) of its sizes in their order.

    Where priors were learned, theirs are the rates, those of the factorial priors come last, and
    runs without one are left out: their rates are of another kind.
    """
    found: dict[str, list[tuple[float, ...]]] = {}
    for group in sorted(_alike(groups), key=lambda group: num_codes(group.settings)):
        test = group.summary["test"]
        mean = lambda name, test=test: float(np.mean(test[name]))
        factorial, distortion = mean("rate_nats"), mean("distortion_nats")
        priced = (
            (mean(LEARNED_RATE), distortion, factorial)
            if has_learned(group)
            else (factorial, distortion)
        )
        found.setdefault(group.settings["estimator"], []).append(priced)
    return found


def has_learned(group: Group) -> bool:
    """Tells whether a prior was learned over the codes of every run of a group."""
    return LEARNED_RATE in group.summary["test"]


def _alike(groups: Sequence[Group]) -> Sequence[Group]:
    """Returns the groups with learned priors; where there is none, all."""
    return [group for group in groups if has_learned(group)] or groups


def _bits(group: Group) -> np.ndarray:
    """Returns bits/dim of every seed, all of one kind: with learned priors if all runs have one."""
    name = report.LEARNED if has_learned(group) else "bits_per_dim"
    return np.ravel(group.summary["test"][name])


def spread(groups: Sequence[Group]) -> float | None:
    """Returns the largest difference in bits/dim between two seeds of one row.

    It is that of rows with learned priors, where there are any.
    """
    found = [float(np.ptp(_bits(group))) for group in _alike(groups) if len(_bits(group)) > 1]
    return max(found, default=None)


def write(groups: Sequence[Group], out: Path) -> str:
    """Writes table, records and picture into `out`; returns the Markdown of the table.

    Rows go by their bits/dim, those with learned priors first.

    Raises:
      ValueError: `out` cannot be written.
    """
    groups = sorted(groups, key=lambda group: (not has_learned(group), float(_bits(group).mean())))
    text = lay_out(groups)
    summaries = summaries_of(groups)
    num_dims = summaries[0].get("num_dims")
    pictures = {"quantizers": figures.rate_distortion(points(groups), num_dims=num_dims)}
    picture = "![rate and distortion](quantizers.png)"
    whole = f"# All quantizers\n\n{text}\n\n{_notes(groups, summaries)}\n\n{picture}\n"
    result_tables.save(whole, summaries, "quantizers", out, pictures=pictures)
    return text


def _notes(groups: Sequence[Group], summaries: Sequence[Summary]) -> str:
    """Says what the columns are, and how far seeds differ."""
    between, machines = spread(groups), _machines(summaries)
    seeds = (
        ""
        if between is None
        else f"Two seeds of a row differ by {between:.3f} bits/dim at most, with "
        f"{'learned' if has_learned(_alike(groups)[0]) else 'factorial'} priors: smaller "
        "differences between rows may be chance.\n"
    )
    hardware = result_tables.hardware(summaries)
    if len(machines) > 1:
        marked = [" ".join(both) for both in zip(_MARKS, machines, strict=False)]
        hardware = f"Hardware, whose speeds do not compare: {', '.join(marked)}."
    return (
        "bits/dim: bound on test images, of each seed, with the model's factorial prior and with "
        "the learned one; rates and distortion in nats an image, their mean over seeds. "
        "Perplexity and unused codes: means over the codebooks of a position; of several stages "
        "those of one stage. images/s: training, the fastest interval between two records.\n"
        f"{seeds}{_priors(summaries)}{hardware}"
    )


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
