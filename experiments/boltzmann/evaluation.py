"""How `binary_vae` and `dvaepp` evaluate images: importance samples in the binary limit.

Bits are bits here, whatever relaxation trained them. The log-likelihood is estimated with K
importance samples of all latent variables an image (a lower bound in the mean, close to log p(x)
for large K); with one sample it is the ELBO.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dvae import rbm
from dvae.models.boltzmann import Machine
from dvae.train import distributed, sharding, status
from experiments.boltzmann import prior as boltzmann_prior
from experiments.boltzmann.config import BoltzmannConfig
from experiments.common import evaluation
from experiments.common.config import LikelihoodConfig

PyTree = Any
# One seed's (parameters, model state, log Z or None, key, images [B, ...], num_samples=K) ->
# log-likelihood, ESS and ELBO [B], KL [B, parts], and what else a program wants, [B, ...] each.
BatchFn = Callable[..., tuple[jax.Array, ...]]
MIN_ESS = 0.05  # of the chains of annealed importance sampling: below, log Z is not to be trusted
UNTRUSTED = float(np.finfo(np.float32).max)  # an NLL by such a log Z; finite, for JSON
# Folded into a seed's key, apart from the indices of batches.
LOG_Z, RECONSTRUCTIONS, SAMPLES = (2**31 - 1 - role for role in range(3))


@dataclass(frozen=True)
class Evaluation:
    """Results on a set of images; S is the number of seeds."""

    log_likelihood: np.ndarray  # [S, images] nats, K samples
    ess: np.ndarray  # [S, images] effective number of the K samples
    elbo: np.ndarray  # [S, images] nats, one sample
    kl: np.ndarray  # [S, images, parts] nats, log q - log p of that sample
    log_z: rbm.ais.LogZ | None  # [S] each, of Boltzmann priors; given labels [S, C]
    reliable: np.ndarray | None  # [S] bool, whether log Z rests on enough chains, of every label

    def averages(self) -> dict[str, np.ndarray]:
        """Averages over the images, [S] each; a program adds its own."""
        nll = -self.log_likelihood.mean(-1)
        values = {"nll": nll, "elbo": self.elbo.mean(-1), "kl": self.kl.mean(1).sum(-1)}
        if self.log_z is not None and self.reliable is not None:
            # Given labels the mean of log Z, and of the least sound one the effective chains.
            of_seeds = [np.reshape(x, (len(nll), -1)) for x in (self.log_z.value, self.log_z.ess)]
            values |= {"log_z": of_seeds[0].mean(-1), "log_z_ess": of_seeds[1].min(-1)}
            # A collapsed log Z is too low, which must not make a step the best.
            # In float64 the mean over seeds does not overflow.
            trusted = np.where(self.reliable, nll.astype(np.float64), UNTRUSTED)
            values[boltzmann_prior.TRUSTED_NLL] = trusted
        return values

    def means(self) -> dict[str, np.ndarray]:
        """Averages over the images, [S] each; a scalar for one seed."""
        return evaluation.without_seed_axis(self.averages())


class Likelihood:
    """Compiles the evaluation once for each number of samples and runs it over any images.

    Random numbers depend on the seed and on an image's batch, so they are the same at every call as
    long as batches are: `eval_batch_size`, rounded up to a multiple of the devices.

    Args:
      config: seeds and batches.
      machine: settings of a Boltzmann prior, whose parameters are `params["prior"]`.
      batch: evaluates the images of a batch.
      mesh: whose devices share them.
      num_labels: that the machine is given; 0: none.
    """

    def __init__(
        self,
        config: LikelihoodConfig,
        machine: BoltzmannConfig | None,
        batch: BatchFn,
        mesh: Mesh,
        num_labels: int = 0,
    ) -> None:
        self._config = config
        self._machine = machine
        self._batch = batch
        self._mesh = mesh
        self._num_labels = num_labels
        self._evaluate_seeds = jax.jit(self._batch_of_seeds, static_argnames="num_samples")
        self._log_z_of_seeds = jax.jit(jax.vmap(self._log_z_of_seed))

    def _log_z_of_seed(self, key: jax.Array, prior: Machine) -> rbm.ais.LogZ:
        assert self._machine is not None
        key = jax.random.fold_in(key, LOG_Z)
        return boltzmann_prior.evaluate_log_z(
            key, self._machine, prior, self._mesh, self._num_labels
        )

    def _log_z(self, params: PyTree) -> rbm.ais.LogZ | None:
        """Estimates log Z of parameters [S, ...]; None where there is no machine."""
        if self._machine is None:
            return None
        keys = evaluation.stacked_keys(self._config, self._mesh)
        silent = not distributed.is_main()
        with status.phase("estimating log Z", silent=silent), status.fixed_length():
            return jax.block_until_ready(self._log_z_of_seeds(keys, params["prior"]))

    def log_z(self, params: PyTree) -> rbm.ais.LogZ | None:
        """Estimates log Z as `evaluate` does, [S] each on the host, given labels [S, C].

        None without a machine.

        Args:
          params: of one seed, or of `num_seeds` along a leading axis.
        """
        return sharding.fetch(self._log_z(evaluation.with_seed_axis(self._config, params)))

    def _batch_of_seeds(
        self,
        params: PyTree,
        model_state: PyTree,
        log_z: jax.Array | None,
        keys: jax.Array,
        index: jax.Array,
        images: jax.Array,
        *,
        num_samples: int,
    ) -> tuple[jax.Array, ...]:
        """Evaluates a batch under parameters and keys [S, ...], its images over the devices."""
        x = sharding.shard_batch(self._mesh, images)
        one_seed = lambda params, model_state, log_z, key: self._batch(
            params, model_state, log_z, jax.random.fold_in(key, index), x, num_samples=num_samples
        )
        return jax.vmap(one_seed)(params, model_state, log_z, keys)

    def evaluate(
        self, params: PyTree, model_state: PyTree, images: np.ndarray, *, num_samples: int
    ) -> tuple[Evaluation, list[np.ndarray]]:
        """Evaluates every image once.

        Args:
          params: of one seed, or of `num_seeds` along a leading axis.
          model_state: what the batch function reads of it, likewise.
          images: [N, ...] as the model takes them.
          num_samples: K, at least 1.

        Returns:
          The evaluation, and [S, N, ...] of everything else that the batch function returns.

        Raises:
          ValueError: `num_samples` is below 1.
        """
        evaluation.check_count("num_samples", num_samples)
        config, mesh = self._config, self._mesh
        params, model_state = evaluation.with_seed_axis(config, (params, model_state))
        keys = evaluation.stacked_keys(config, mesh)
        log_z = self._log_z(params)
        value = None if log_z is None else log_z.value
        log_likelihood, ess, elbo, kl, *others = evaluation.over_images(
            config,
            mesh,
            images,
            lambda i, batch: self._evaluate_seeds(
                params, model_state, value, keys, i, batch, num_samples=num_samples
            ),
            description=f"{len(images)} images, {num_samples} samples each",
        )
        log_z, sound = sharding.fetch(log_z), None
        if self._machine is not None:
            of_seeds = reliable(self._machine, log_z).reshape(config.num_seeds, -1)
            sound = np.asarray(of_seeds.all(-1))
        return Evaluation(log_likelihood, ess, elbo, kl, log_z, sound), others


def reliable(machine: BoltzmannConfig, log_z: rbm.ais.LogZ) -> np.ndarray:
    """Returns whether estimates of log Z rest on enough chains, bool of their shape."""
    return np.asarray(log_z.ess) >= MIN_ESS * machine.ais_chains


def picture_key(config: LikelihoodConfig, role: int) -> jax.Array:
    """Returns the first seed's key for `RECONSTRUCTIONS` or `SAMPLES`."""
    return jax.random.fold_in(evaluation.seed_keys(config)[0], role)
