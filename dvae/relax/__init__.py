"""Relaxations: continuous samples, or continuous gradients, in the place of discrete variables.

One module per family, each with a deterministic core that maps noise to a sample and a one-line
`sample(key, logits, ...)` on top of it.

Smoothings of bits, a continuous zeta with density r(zeta|z) around z. They tend to bits as the
inverse temperature beta grows, and the mixture over z ~ Bernoulli(sigmoid(l)) is sampled by its
inverse CDF (`SMOOTHINGS` lists them by name):

    module       r(zeta|0)                          support  inverse CDF
    exponential  exponential                        [0, 1]   closed form
    logistic     logistic, scale 1/beta             R        closed form
    power        zeta^{1/beta - 1} / beta           (0, 1)   Halley
    gaussian     normal, variance 1/beta            R        Halley
    uniform_exp  exponential, floor eps             [0, 1]   Halley
    spike_exp    delta(zeta); exponential for z=1   [0, 1]   closed form
    step         delta(zeta), delta(zeta-1)         {0, 1}   no gradient

    zeta = relax.exponential.sample(key, logits, beta)             # F^{-1}(rho), rho uniform
    zeta = relax.exponential.ancestral_sample(key, logits, beta)   # z, then zeta given z
    zeta = relax.exponential.icdf(rho, logits, beta)               # from your own noise
    relax.exponential.log_prob(zeta, logits, beta)                 # of the mixture; also cdf
    relax.exponential.posterior_logits(zeta, logits, beta)         # logit of q(z=1 | x, zeta)

with log_ratio = log r(zeta|1) - log r(zeta|0) and log_prob_0 = log r(zeta|0) for priors over z.
uniform_exp takes `eps` by keyword; spike_exp, which has an atom, has icdf, sample and cdf only;
step icdf and sample.

In float32 zeta is accurate to the last digits of rho, of 1 - rho and of zeta, for logits in
[-80, 80], beta in [0.1, 200] and rho in [2^-33, 1 - 2^-24], all that `sample` draws; for gaussian
not where its density is below 1e-5, deep between sharp modes. Gradients in rho, logits and beta are
those of the implicit function. They and second derivatives are finite, also at rho = 0 and 1;
higher orders may overflow. Sharp smoothings have cliffs between the two modes: there the slope of
zeta in l grows like e^{beta/2} for exponential and logistic, e^{beta/8} for gaussian, like beta for
power, and is bounded by 1/eps for uniform_exp. It ends at 2^24 / rho, where zeta crosses [0, 1]
within one rounding of rho, so that no single draw outweighs a mean.

Relaxations without a conditional r(zeta|z):

    y = relax.binary_concrete.sample(key, logits, temperature)            # in [0, 1]
    y = relax.gumbel_softmax.sample(key, logits, temperature)             # on the simplex
    y = relax.gumbel_softmax.sample(key, logits, temperature, hard=True)  # one-hot forward

Hard samples forward with a surrogate gradient backward, for bits and for one-hot vectors:

    z = relax.straight_through.bernoulli(key, logits)                     # that of the mean
    z = relax.reinmax.bernoulli(key, logits)                              # second order
    z = relax.gumbel_rao.bernoulli(key, logits, temperature, num_samples=10)

Everything is elementwise over units (gumbel_softmax and the `categorical` functions: over all axes
but the last, the class axis), keeps the dtype of the logits, and is differentiable in the logits;
relaxed samples also in the temperature. NaN logits give NaN, hard samples included.
"""

from typing import cast

from dvae.relax import (
    binary_concrete,
    exponential,
    gaussian,
    gumbel_rao,
    gumbel_softmax,
    logistic,
    power,
    reinmax,
    spike_exp,
    step,
    straight_through,
    uniform_exp,
)
from dvae.relax._protocol import Smoothing

SMOOTHINGS: dict[str, Smoothing] = {
    "spike_exp": cast(Smoothing, spike_exp),  # has an atom, and so no density
    "exponential": exponential,
    "logistic": logistic,
    "power": power,
    "gaussian": gaussian,
    "uniform_exp": uniform_exp,
}

__all__ = [
    "SMOOTHINGS",
    "Smoothing",
    "binary_concrete",
    "exponential",
    "gaussian",
    "gumbel_rao",
    "gumbel_softmax",
    "logistic",
    "power",
    "reinmax",
    "spike_exp",
    "step",
    "straight_through",
    "uniform_exp",
]
