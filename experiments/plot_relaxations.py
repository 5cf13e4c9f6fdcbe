"""Draws the relaxations of a bit: densities, inverse CDFs, and a comparison with Concrete.

    python -m experiments.plot_relaxations --out=runs/relaxations

writes, in seconds and without training,

    smoothing_densities.png       r(zeta|z) of every smoothing; DVAE++, Fig. 1(a)
    mixture_mu_075.png            the mixture q(zeta) at mu = 0.75
    inverse_cdf.png               F^-1(1/2) against mu, for several beta
    spike_exp_vs_exponential.png  the same for two smoothings; DVAE++, Fig. 1(b)
    concrete_comparison.png       exponential, power and binary Concrete at one sharpness
    curves.json                   points of every curve, and the matched settings

after Vahdat et al., "DVAE++" (2018), and, for the power family, DVAE# (2018).

Matched sharpness. Families have different parameters, so they are compared where they are equally
far from bits: the noise E min(zeta, 1 - zeta), the mean distance to the nearest bit, is the same
for a logit of zero, where a bit is least certain. The exponential at --beta sets the noise,
tanh(beta/4) / beta; the beta of the power family and the temperature of Concrete follow.

What the comparison shows. min(zeta, 1 - zeta) has the same law under r(zeta|0) and r(zeta|1), so
the noise of a symmetric smoothing does not depend on the logit: a unit that is certain of its bit
still passes on noise. That of Concrete falls in proportion to q (1-q). The price is the gradient:
the second moment of dzeta/dl over its squared mean grows like 1 / (q (1-q)) for Concrete without
end; for the exponential it grows more slowly and levels off once |l| exceeds beta; for the power
family it hardly grows.
"""

import errno
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae import relax
from dvae.analysis import figures
from dvae.train import checkpoint
from experiments.common import flag_help, flags
from experiments.common.flags import option

MIXTURE_MU = 0.75
MIN_BETA, MAX_BETA, MAX_BETAS = 0.5, 100.0, 6
NAMES = {
    "power": "power",
    "exponential": "exponential",
    "uniform_exp": "uniform + exponential",
    "logistic": "logistic",
    "gaussian": "Gaussian",
    "spike_exp": "spike-and-exp",
}
ON_THE_LINE = ("logistic", "gaussian")  # the others live on the unit interval
UNIT = np.linspace(0.001, 0.999, 999)  # of mu, and of zeta
LINE = np.linspace(-1.0, 2.0, 1501)
LOGITS = np.linspace(0.0, 8.0, 65)
CHOSEN = {0.0: 0, 4.0: 32}  # logit -> its place in LOGITS
DPI = 96
FACTORS = np.geomspace(0.25, 2.0, 31)  # of the sharpness, along a path
NUM_NODES = 300


@dataclass(frozen=True)
class Config:
    """What is drawn, and where to."""

    out: str = option("runs/relaxations", "Folder of the figures.", path=True)
    beta: float = option(10.0, "Inverse temperature of densities and comparison.", minimum=MIN_BETA)
    betas: str = option("2,5,10,20", "Inverse temperatures of the inverse CDFs, with commas.")

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn."""
        flags.check_fields(self)
        if self.beta > MAX_BETA:
            raise ValueError(f"--beta={self.beta} must be at most {MAX_BETA:g}")
        self.beta_values()

    def beta_values(self) -> list[float]:
        """Returns the inverse temperatures of the inverse CDFs, in order."""
        rule = f"must be 1 to {MAX_BETAS} numbers in [{MIN_BETA:g}, {MAX_BETA:g}], such as 2,5,10"
        try:
            values = sorted({float(text) for text in self.betas.split(",")})
        except ValueError as error:
            raise ValueError(f"--betas={self.betas} {rule}") from error
        if len(values) > MAX_BETAS or not all(MIN_BETA <= value <= MAX_BETA for value in values):
            raise ValueError(f"--betas={self.betas} {rule}")
        return values


class Relaxation(NamedTuple):
    """A relaxation whose noise falls with its sharpness: beta, or 1 / temperature."""

    icdf: Callable[..., jax.Array]
    cdf: Callable[..., jax.Array]
    log_prob: Callable[..., jax.Array]


class Moments(NamedTuple):
    """Expectations over the law of zeta, [L] for L logits."""

    noise: jax.Array  # E min(zeta, 1 - zeta)
    mean_slope: jax.Array  # E dzeta/dl
    slope: jax.Array  # E (dzeta/dl)^2


def _by_temperature(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Makes 1 / temperature the last argument of a function of Concrete."""
    return lambda x, logits, sharpness: function(x, logits, 1 / sharpness)


def _of_module(module: Any) -> Relaxation:
    return Relaxation(module.icdf, module.cdf, module.log_prob)


EXPONENTIAL = _of_module(relax.exponential)
POWER = _of_module(relax.power)
CONCRETE = Relaxation(*map(_by_temperature, _of_module(relax.binary_concrete)))


class Densities(NamedTuple):
    """One smoothing at one beta and mu, on a grid of zeta."""

    zeta: np.ndarray
    r_0: np.ndarray | None  # None is a unit mass at zero
    r_1: np.ndarray
    mixture: np.ndarray  # without the mass at zero
    mass: float  # probability of exactly zero


@partial(jax.jit, static_argnums=0)
def moments(relaxation: Relaxation, logits: jax.Array, sharpness: jax.Array | float) -> Moments:
    """Integrates over zeta in (0, 1): dzeta/dl = -(dF/dl) / f needs no inverse.

    Needs the mirror symmetry F(1 - zeta; l) = 1 - F(zeta; -l); logits [L], sharpness positive.
    """
    # Gauss and Legendre's nodes on (0, 1/2), crowded towards zero, where densities may be
    # unbounded. The mirror gives the other half, in which 1 - zeta would round.
    nodes, steps = np.polynomial.legendre.leggauss(NUM_NODES)
    t = (nodes + 1) / 2
    zeta = jnp.asarray(t**4 / 2, logits.dtype)[None, :]
    weights = jnp.asarray(steps * t**3, logits.dtype)[None, :]

    def half(logits: jax.Array) -> jax.Array:
        cdf = lambda x: relaxation.cdf(zeta, x[:, None], sharpness)
        _, by_logit = jax.jvp(cdf, (logits,), (jnp.ones_like(logits),))
        log_f = relaxation.log_prob(zeta, logits[:, None], sharpness)
        parts = (zeta * jnp.exp(log_f), -by_logit, by_logit**2 * jnp.exp(-log_f))
        return jnp.stack([(weights * part).sum(axis=1) for part in parts])

    return Moments(*(half(logits) + half(-logits)))


def match_sharpness(relaxation: Relaxation, noise: float) -> float:
    """Returns the sharpness in [1, 1000] whose noise at a logit of zero is this one, by bisection.

    Needs a relaxation that is uniform at sharpness 1, and so of noise 1/4, and falls from there.
    """
    low, high = 0.0, math.log(1000.0)
    for _ in range(30):
        middle = (low + high) / 2
        at_zero = moments(relaxation, jnp.asarray(LOGITS), math.exp(middle)).noise[0]
        low, high = (middle, high) if at_zero > noise else (low, middle)
    return math.exp((low + high) / 2)


def densities(name: str, beta: float, mu: float) -> Densities:
    """Evaluates the densities of a smoothing, conditional and mixed."""
    module, logit = relax.SMOOTHINGS[name], jnp.log(mu / (1 - mu))
    zeta = LINE if name in ON_THE_LINE else UNIT
    if name == "spike_exp":
        # Its r_1 is that of the overlapping exponential; it has a CDF but no density.
        r_1 = np.exp(relax.exponential.log_prob_0(jnp.asarray(1 - zeta), beta))
        slope = jax.vmap(jax.grad(lambda x: module.cdf(x, logit, beta)))
        return Densities(zeta, None, r_1, np.asarray(slope(jnp.asarray(zeta))), 1 - mu)
    r_0, r_1 = (np.exp(module.log_prob_0(jnp.asarray(x), beta)) for x in (zeta, 1 - zeta))
    return Densities(zeta, r_0, r_1, np.exp(module.log_prob(jnp.asarray(zeta), logit, beta)), 0.0)


def inverse_cdf(icdf: Callable[..., jax.Array], sharpness: float | list[float]) -> np.ndarray:
    """Returns F^-1(1/2) at each mu of `UNIT`: [M], or [B, M] for a list of B sharpnesses."""
    logits = jnp.asarray(np.log(UNIT / (1 - UNIT)))
    return np.asarray(jax.jit(icdf)(0.5, logits, jnp.asarray(sharpness)[..., None]))


def compare_with_concrete(beta: float) -> tuple[dict[str, figures.RelaxedBit], dict[str, Any]]:
    """Returns label -> curves of exponential, power and Concrete, and their record for the JSON."""
    logits, chosen = jnp.asarray(LOGITS), list(CHOSEN.values())
    target = float(moments(EXPONENTIAL, logits, beta).noise[0])
    power, concrete = (match_sharpness(relaxation, target) for relaxation in (POWER, CONCRETE))
    settings = {
        f"exponential, β = {beta:g}": (EXPONENTIAL, beta),
        f"power, β = {power:.3g}": (POWER, power),
        f"binary Concrete, τ = {1 / concrete:.3g}": (CONCRETE, concrete),
    }
    bits, record = {}, {}
    for label, (relaxation, sharpness) in settings.items():
        at_sharpness = moments(relaxation, logits, sharpness)
        ratio = lambda m: np.asarray(m.slope / m.mean_slope**2)
        sweep = [moments(relaxation, logits, sharpness * factor) for factor in FACTORS.tolist()]
        zeta, column = jnp.asarray(UNIT)[None, :], jnp.asarray(list(CHOSEN))[:, None]
        density = np.exp(relaxation.log_prob(zeta, column, sharpness))
        icdf = inverse_cdf(relaxation.icdf, sharpness)
        bits[label] = figures.RelaxedBit(
            icdf,
            density,
            np.asarray(at_sharpness.noise),
            ratio(at_sharpness),
            np.stack([np.asarray(m.noise)[chosen] for m in sweep], axis=1),
            np.stack([ratio(m)[chosen] for m in sweep], axis=1),
        )
        setting = {"temperature": 1 / sharpness} if relaxation is CONCRETE else {"beta": sharpness}
        record[label.split(",")[0]] = setting | {
            "inverse_cdf": _thin(icdf),
            "densities": [_thin(row) for row in density],
            "noise": _round(at_sharpness.noise[::8]),
            "mean_slope": _round(at_sharpness.mean_slope[::8]),
            "second_moment_of_slope": _round(at_sharpness.slope[::8]),
        }
    return bits, record


def _round(values: Any) -> list[float]:
    """Keeps six digits, for a file that is read by eyes too."""
    return [float(f"{value:.6g}") for value in np.asarray(values)]


def _thin(values: Any) -> list[float]:
    """Keeps the points 0.05, 0.1, ..., 0.95 of a curve on `UNIT`, and every 0.1 on `LINE`."""
    return _round(values[49::50] if len(values) == len(UNIT) else values[::50])


def draw(config: Config) -> dict[str, Any]:
    """Computes every curve, writes figures and JSON into `config.out`, returns the JSON's value."""
    out, beta, betas = Path(config.out), config.beta, config.beta_values()
    curves = {name: densities(name, beta, MIXTURE_MU) for name in NAMES}
    inverses = {name: inverse_cdf(relax.SMOOTHINGS[name].icdf, betas) for name in NAMES}
    bits, comparison = compare_with_concrete(beta)
    by_beta = {
        NAMES[name]: {f"β = {b:g}": row for b, row in zip(betas, rows, strict=True)}
        for name, rows in inverses.items()
    }
    pair = {
        f"β = {b:g}": {NAMES[name]: inverses[name][i] for name in ("exponential", "spike_exp")}
        for i, b in enumerate(betas)
    }
    conditionals = {NAMES[name]: (c.zeta, c.r_0, c.r_1) for name, c in curves.items()}
    mixtures = {NAMES[name]: (c.zeta, c.mixture, c.mass) for name, c in curves.items()}
    title = f"β = {beta:g}"
    pictures = {
        "smoothing_densities": figures.smoothing_densities(conditionals, top=beta, title=title),
        "mixture_mu_075": figures.mixture_densities(
            mixtures, top=beta, title=f"μ = {MIXTURE_MU:g}, {title}"
        ),
        "inverse_cdf": figures.inverse_cdfs(UNIT, by_beta),
        "spike_exp_vs_exponential": figures.inverse_cdfs(UNIT, pair),
        "concrete_comparison": figures.relaxed_bits(UNIT, UNIT, LOGITS, list(CHOSEN), bits),
    }
    for name, figure in pictures.items():
        figures.save(figure, out / f"{name}.png", dpi=DPI)
    record = {
        "beta": beta,
        "betas": betas,
        "mu": _thin(UNIT),
        "rho": 0.5,
        "smoothings": {
            name: {
                "zeta": _thin(c.zeta),
                "r_0": None if c.r_0 is None else _thin(c.r_0),
                "r_1": _thin(c.r_1),
                "mixture_mu_075": _thin(c.mixture),
                "mass_at_zero": c.mass,
                "inverse_cdf": {f"{b:g}": _thin(v) for b, v in zip(betas, rows, strict=True)},
            }
            for (name, c), rows in zip(curves.items(), inverses.values(), strict=True)
        },
        "concrete_comparison": {
            "logits_of_densities": list(CHOSEN),
            "logits": _round(LOGITS[::8]),
            "relaxations": comparison,
        },
    }
    checkpoint.write_json(out / "curves.json", record)
    flag_help.tell("matched at a logit of zero: " + "; ".join(bits))
    flag_help.tell(f"written to {out}")
    return record


def prepare(config: Config) -> None:
    """Makes the directory, or raises ValueError if it cannot be written."""
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ValueError(f"cannot write to {out} ({error.strerror}); try --out") from error


def main(arguments: list[str]) -> None:
    """Draws what the command line asks for."""
    with flags.setup():
        flags.refuse_words(arguments)
        config = flags.parse(Config)
        prepare(config)
    draw(config)


if __name__ == "__main__":
    flags.define(Config)
    flags.run(main)
