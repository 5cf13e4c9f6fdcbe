"""What may keep codes of Gumbel-Softmax models in use, and what it takes.

Under the exact KL a code that few images use gets a small prior probability, and then costs more to
use. Three settings work against that:

- The prior is uniform for the first steps: p(z = k) = 1 / C.
- A floor f for the entropy of each latent variable's mean posterior, the mean over the batch and
  its h w positions. The objective loses

      h w sum_n max(0, f log C - H(mean q_n)).

  The mean KL to a prior that fits is sum over positions of H(mean q_n) less the mean H(q_n). So
  below the floor codes cost what they would cost under a uniform prior, up to a constant.
- Restarts: a code that is sampled too seldom moves to an encoding of the batch, and its prior
  probability to 1 / C of what the others have together.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from dvae import vq
from dvae.distributions import categorical
from dvae.train.state import Metrics, StepFn, TrainState
from experiments.cifar_vq import names
from experiments.common.config import RunConfig
from experiments.common.flag_rules import Rules, one_of
from experiments.common.flags import option

PyTree = Any
DECAY = 0.99  # of the moving average of a code's samples, a step
_RELAXED = (names.GS_SOFT, names.GS_HARD)


@dataclass(frozen=True)
class UsageConfig(RunConfig):
    """Settings that may keep codes in use."""

    prior_warmup_steps: int = option(
        0,
        "First steps, in which the prior over the codes is uniform and is not learned.",
        minimum=0,
        group="objective",
        former=0,
    )
    entropy_floor: float = option(
        0.0,
        "Share of log C below which the entropy of the mean posterior costs what it lacks; 0: "
        "never.",
        minimum=0,
        group="objective",
        former=0.0,
    )
    restart_samples: float = option(
        0.0,
        "Samples a step, a moving average, under which a code is moved to an encoding of the "
        "batch; 0: never.",
        minimum=0,
        group="objective",
        former=0.0,
    )

    READ_WITH_USAGE: ClassVar[Rules] = {
        "prior_warmup_steps": [{"estimator": one_of(*names.PROBABILISTIC)}],
        "entropy_floor": [{"estimator": one_of(*_RELAXED)}],
        "restart_samples": [{"estimator": one_of(*_RELAXED)}],
    }

    def check_usage(self) -> None:
        """Raises ValueError for a floor that no posterior reaches, or a warm-up without an end."""
        if self.prior_warmup_steps >= self.num_steps:
            raise ValueError(
                f"--prior_warmup_steps={self.prior_warmup_steps} must be below --num_steps="
                f"{self.num_steps}, or the prior is never learned"
            )
        if self.entropy_floor > 1:
            raise ValueError(
                f"--entropy_floor={self.entropy_floor} must be at most 1, the entropy of equal use"
            )


class Usage(NamedTuple):
    """How often each code is sampled, and where it moves after this step."""

    counts: jax.Array  # [n, C], moving averages of samples a step
    moved: jax.Array  # bool [n, C]
    targets: jax.Array  # [n, C, D], read where a code is moved


def start(codebook: jax.Array, threshold: float) -> Usage:
    """Returns the state before the first step, in which no code is below the threshold."""
    shape = codebook.shape[:2]
    counts = jnp.full(shape, max(1.0, 2 * threshold))
    return Usage(counts, jnp.zeros(shape, bool), codebook)


def restarts(config: Any) -> bool:
    """Tells whether a run of `cifar_vq` moves codes that are sampled too seldom."""
    return config.estimator in _RELAXED and config.restart_samples > 0


def prior(config: Any, log_prior: jax.Array, step: jax.Array) -> jax.Array:
    """Returns log p(z = k), [n, C], as it is at a step of a run of `cifar_vq`."""
    if config.estimator not in names.PROBABILISTIC or not config.prior_warmup_steps:
        return log_prior
    uniform = -jnp.log(jnp.full_like(log_prior, log_prior.shape[-1]))
    return jnp.where(step < config.prior_warmup_steps, uniform, log_prior)


def lacking_entropy(logits: jax.Array, floor: float) -> jax.Array:
    """Evaluates h w sum_n max(0, f log C - H(mean q_n)), nats [], of logits [B, h, w, n, C]."""
    _, height, width, _, num_codes = logits.shape
    log_mean = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=(0, 1, 2))
    entropy = categorical.entropy(log_mean)  # normalizes
    lacking = jnp.maximum(0.0, floor * jnp.log(num_codes) - entropy)
    return height * width * jnp.sum(lacking)


def count(
    key: jax.Array,
    state: Usage,
    codebook: jax.Array,
    vectors: jax.Array,
    codes: jax.Array,
    threshold: float,
) -> Usage:
    """Counts the codes [..., n] of a step, and says which move to which encodings.

    Args:
      key: typed key.
      state: before the step.
      codebook: [n, C, D].
      vectors: [B, h, w, n, D].
      codes: int32 [B, h, w, n] that were sampled.
      threshold: samples a step.
    """
    num_latents, num_codes, dim = codebook.shape
    of_latent = jax.vmap(lambda k: vq.usage(k, num_codes), in_axes=1)
    now = of_latent(codes.reshape(-1, num_latents)).astype(jnp.float32)
    counts = DECAY * state.counts + (1 - DECAY) * now
    points = jnp.moveaxis(vectors.reshape(-1, num_latents, dim), 1, 0)
    before = vq.EMAState(codebook, counts, codebook)
    restart = lambda k, s, v: vq.restart_dead_codes(k, s, v, threshold=threshold)
    after = jax.vmap(restart)(jax.random.split(key, num_latents), before, points)
    # A count moves where its code does, and nowhere else.
    state = Usage(after.counts, after.counts != counts, after.codebook)
    return jax.lax.stop_gradient(state)


def restarting(step_fn: StepFn) -> StepFn:
    """Returns a step that moves the codes which `count` names, after the optimizer's update."""

    def step(state: TrainState, data: PyTree, key: jax.Array) -> tuple[TrainState, Metrics]:
        after, metrics = step_fn(state, data, key)
        usage: Usage = after.model_state
        moved, params = usage.moved, after.params
        logits = params["network"]["prior_logits"]
        others = jnp.where(moved, -jnp.inf, logits)
        alive = jnp.sum(~moved, axis=-1, keepdims=True)
        mean = jax.nn.logsumexp(others, axis=-1, keepdims=True) - jnp.log(alive)
        network = {
            **params["network"],
            "prior_logits": jnp.where(moved & (alive > 0), mean, logits),
        }
        codebook = jnp.where(moved[..., None], usage.targets, params["codebook"])
        return after._replace(params={**params, "network": network, "codebook": codebook}), metrics

    return step
