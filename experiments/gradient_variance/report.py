"""What `gradient_variance` leaves behind: report.md, results.json and bias_and_variance.png."""

from pathlib import Path
from typing import Any

from dvae._replacing import replace_text
from dvae.analysis import figures, tables
from dvae.train import checkpoint

PARAMETERS = {"phi": "Encoder (phi)", "theta": "Decoder and prior (theta)"}
HOW_TO_READ = """\
How to read it. With h the exact gradient (all states enumerated) and g an estimate,
bias² = |E g - h|² / |h|² and variance = E |g - E g|² / |h|², so the mean of M estimates has the
relative squared error bias² + variance / M: below M = variance / bias² the variance is what hurts,
above it the bias. An estimate costs `evals` evaluations of the decoder an image; variance x evals
compares estimators at equal numbers of them, each used to draw as many estimates as it can. A
gradient of zero would have bias² = 1 and no variance.

- ± is one standard error over the draws. "0 within X": consistent with zero, the estimate of bias²
  lies below three standard errors, X (an unbiased estimator lies above them about once in a
  thousand). A large X only says that these draws cannot tell.
"""
OF_BITS = """\
- In the figure, small markers are soft settings and large ones sharp; hollow ones are the marginal
  bound.
- joint and marginal are the two bounds of the relaxations. Their gradients are of a relaxed
  objective, which is what their bias consists of. Concrete's marginal bound has the divergence of
  two Concrete densities, which grows with the logit of a certain unit without end, where that of
  two bits does not exceed log 2 (under a uniform prior): after training it pulls hard on logits
  that the discrete bound leaves alone.
- tuned: at the fixed model and on the same images, {tune_steps:,} steps of Adam descend what trains
  the baseline (nvil) or the variance of the gradient in the logits (eta, temperature and network of
  rebar and relax). In a training they follow a moving model instead, which this does not measure.
- nvil divides its signal by its running standard deviation, which shrinks the gradient in phi and
  shows here as a bias; "not rescaled" leaves that out. Its running statistics are those of the end
  of the tuning. Its divergence is part of the sampled signal; all others have it in closed form
  (but for the marginal bounds).
- vimco and local_disarm estimate another gradient, that of the bound of two samples. It is their h,
  exact by all pairs of states, so that only they compare with one another.
"""
OF_CATEGORICAL = """\
- In the figure, small markers are soft settings and large ones sharp.
- coupled is the like of disarm for classes: its two samples avoid each other.
- gs_soft differentiates a relaxed sample, gs_hard a hard one by the slope of the relaxed one. Their
  bias is that of the relaxed objective, or of the slope.
- The divergence of all is in closed form.
"""


def write(record: dict[str, Any], out: Path) -> str:
    """Writes the three files from a record of `gradient_variance`; returns the encoder's table."""
    rows = {side: table(record, side) for side in PARAMETERS}
    config = record["config"]
    size = config["structure"]
    if size == "nonlinear":
        size += f" ({config['hidden_layers']} x {config['hidden_units']} tanh)"
    bits = config["num_classes"] == 2
    latents = (
        f"{config['num_latents']} bits in one group"
        if bits
        else f"{config['num_latents']} variables of {config['num_classes']} classes"
    )
    stages = "; ".join(f"{s['title']} {s['elbo']:.2f}" for s in record["stages"])
    lines = [
        "# All numbers of gradient_variance",
        "",
        f"{latents}, {size}, {config['batch_size']} images of "
        f"{config['dataset']}, {config['num_draws']:,} draws, trained with "
        f"{config['train_estimator']}, seed {config['seed']}. Exact ELBO of the images in nats: "
        f"{stages}. {record['wall_seconds']:.0f} s on {record['hardware']}.",
        "",
        f"    {record['command']}",
        "",
        "![squared bias against variance](bias_and_variance.png)",
        "",
    ]
    for side, title in PARAMETERS.items():
        lines += [f"## {title}", "", rows[side]]
    of_kind = OF_BITS.format(tune_steps=config["tune_steps"]) if bits else OF_CATEGORICAL
    lines += [HOW_TO_READ + of_kind]
    replace_text(out / "report.md", "\n".join(lines))
    checkpoint.write_json(out / "results.json", record)
    figures.save(draw(record), out / "bias_and_variance.png")
    return rows["phi"]


def table(record: dict[str, Any], side: str) -> str:
    """Lays out the errors in the parameters of one side, a row an estimator."""
    header = ["estimator", "evals"]
    for stage in record["stages"]:
        title = stage["title"]
        header += [f"bias² {title}", f"variance {title}", "variance x evals"]
    rows = []
    for estimator in record["estimators"]:
        row: list[object] = [estimator["label"], estimator["decoder_evaluations"]]
        for stage in estimator["stages"]:
            error = stage[side]
            row += [
                _bias(error),
                tables.format_value(error["variance"], error["variance_error"]),
                f"{error['variance'] * estimator['decoder_evaluations']:.3g}",
            ]
        rows.append(row)
    return tables.markdown(header, rows)


def _bias(error: dict[str, float]) -> str:
    """Writes a squared bias, or how closely it is consistent with zero."""
    if not figures.GradientError(error["bias"], error["bias_error"], error["variance"]).biased:
        return f"0 within {3 * error['bias_error']:.2g}"
    return tables.format_value(error["bias"], error["bias_error"])


def draw(record: dict[str, Any]) -> figures.Figure:
    """Draws the encoder's bias against variance, at every stage."""
    stages: dict[str, dict[str, list[figures.GradientError]]] = {}
    for i, stage in enumerate(record["stages"]):
        paths = stages.setdefault(stage["title"], {})
        for estimator in record["estimators"]:
            error = estimator["stages"][i]["phi"]
            point = figures.GradientError(error["bias"], error["bias_error"], error["variance"])
            paths.setdefault(estimator["path"], []).append(point)
    return figures.bias_and_variance(stages, unit="/ |exact gradient|²")
