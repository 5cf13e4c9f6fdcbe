"""What a trained model of `binary_vae` does: binary images by groups of bits.

Codes are the bits of all groups, uint8 [N, n]. Everything is in the binary limit: bits are bits,
whatever relaxation trained them. The parameters are

    network      of `models.mlp`
    mean         [D] of the training pixels, which the encoder subtracts
    batch_stats  moving averages of batch norm, if there is any

and under a Boltzmann prior

    prior        bias1, bias2 and weights of an RBM, or bias and weights of a machine on a graph,
                 which is in the settings
    log_z        [] its log Z, an estimate; after a change of the prior take another one, such as
                 `rbm.ais.log_z(key, params["prior"]).value`, on a graph `boltzmann.ais`
    chains       those of the training, from which samples start

A model with labels is given one of every image, wherever it meets the image or its bits:
q(z | x, y), p(z | y), p(x | z, y), and bounds of log p(x | y). Labels are int [N] from 0 on, or
where the network has `real_labels` finite floats [N, C]. A Boltzmann prior given integer labels is
a `models.labeled_machine`, of a graph with a unit for each of C labels, and log_z [C] its log Z(y).
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from dvae import bounds
from dvae.distributions import bernoulli
from dvae.models import binary, checks, mlp
from dvae.trained import _machine
from dvae.trained._checks import check_labels, check_shape
from dvae.trained._machine import NO_GRAPH, Topology

__all__ = ["Functions", "Terms"]

PyTree = Any
_CHUNK_SIZE = 10  # samples decoded at once: a thousand rows of logits stay in the cache


class Terms(NamedTuple):
    """What is estimated of N images."""

    log_likelihood: jax.Array  # [N] nats, K samples
    ess: jax.Array  # [N] effective number of them
    elbo: jax.Array  # [N] nats, one sample
    kl: jax.Array  # [N, parts] nats, log q - log p of that sample
    posterior_mean: jax.Array  # [N, n] q(z = 1 | x) of the first group


@dataclass(frozen=True)
class Functions:
    """Pure functions of the parameters of a model with these sizes."""

    kind: ClassVar[str] = "binary_vae"
    pixels: ClassVar[str] = checks.BITS

    network: mlp.BinaryVAEConfig
    image_shape: tuple[int, int, int]
    num_chains: int = 0  # of a Boltzmann prior
    weighted_chains: bool = False  # they are those of population annealing
    topology: Topology = NO_GRAPH  # of the machine

    def __post_init__(self) -> None:
        """Raises ValueError for settings that make no model."""
        check_shape(self.image_shape)
        if math.prod(self.image_shape) != self.network.num_pixels:
            raise ValueError(
                f"images of shape {self.image_shape} do not have the {self.network.num_pixels} "
                "pixels of the network"
            )
        directed = self.network.directed
        _machine.check_chains(self.num_chains, needed=not directed)
        _machine.check_topology(self.topology, directed=directed, num_labels=self.num_labels)

    def abstract_params(self) -> PyTree:
        """Returns shapes and dtypes of the parameters."""
        c, mean = self.network, jax.ShapeDtypeStruct((self.network.num_pixels,), jnp.float32)
        module, blank = mlp.BinaryVAE(c), jax.ShapeDtypeStruct((1, c.num_pixels), jnp.float32)
        init = lambda *args: module.init(*args)
        variables = jax.eval_shape(init, jax.random.key(0), blank)
        params = {
            "network": variables["params"],
            "mean": mean,
            "batch_stats": variables.get("batch_stats", {}),
        }
        if c.directed:
            return params
        return params | _machine.abstract_machine(
            sum(c.group_sizes),
            self.num_chains,
            self.topology,
            weighted=self.weighted_chains,
            num_labels=c.num_labels,
        )

    @property
    def num_labels(self) -> int:
        """How many labels the model knows, or numbers of a real one; 0: it is given none."""
        return self.network.num_labels

    def check_labels(self, labels: Any, count: int) -> None:
        """Raises ValueError unless labels are those of count images, see `Functions`."""
        check_labels(labels, count, size=self.num_labels, real=self.network.real_labels)

    def check_images(self, images: Any) -> None:
        """Raises ValueError unless images are [N, *image_shape], pixels 0 or 1 of any dtype."""
        checks.check_images(images, kind=checks.BITS, shape=("N", *self.image_shape))

    def check_codes(self, codes: Any) -> None:
        """Raises ValueError unless codes are bits [N, n] of any dtype."""
        shape = ("N", sum(self.network.group_sizes))
        checks.check_images(codes, kind=checks.BITS, shape=shape, name="codes")

    def _seen(self, labels: jax.Array | None) -> jax.Array | None:
        """Returns labels [N], or real ones [N, C], as the networks see them, float [N, C]."""
        if labels is None or self.network.real_labels:
            return None if labels is None else jnp.asarray(labels, jnp.float32)
        return jax.nn.one_hot(labels, self.num_labels)

    def _bind(self, params: PyTree, images: jax.Array, labels: jax.Array | None) -> binary.Networks:
        """Returns the networks on images; the first group's logits are computed once."""
        x = images.reshape(len(images), self.network.num_pixels).astype(jnp.float32)
        module, stats = mlp.BinaryVAE(self.network), params["batch_stats"]
        seen = self._seen(labels)
        model = binary.bind(module, params["network"], params["mean"], x, stats, seen)
        logits = model.posterior_logits([])
        return model._replace(
            posterior_logits=lambda earlier: model.posterior_logits(earlier) if earlier else logits
        )

    def _run(
        self, params: PyTree, method: Any, groups: list[jax.Array], labels: jax.Array | None
    ) -> jax.Array:
        module, stats = mlp.BinaryVAE(self.network), params["batch_stats"]
        seen = self._seen(labels)
        return binary.apply(module, params["network"], method, groups, seen, batch_stats=stats)

    def encode(
        self,
        params: PyTree,
        key: jax.Array | None,
        images: jax.Array,
        *,
        labels: jax.Array | None = None,
    ) -> jax.Array:
        """Draws z_1 ~ q(z_1 | x), z_2 ~ q(z_2 | x, z_1), ...

        Without a key every group is at the mode of its posterior, given the groups before.

        Args:
            params: of the model.
            key: typed PRNG key, or None.
            images: [N, *image_shape], pixels 0 or 1.
            labels: of the images, where the model has labels.

        Returns:
            uint8 [N, n], the bits of all groups.
        """
        model = self._bind(params, images, labels)
        groups: list[jax.Array] = []
        num_groups = len(self.network.group_sizes)
        keys = [None] * num_groups if key is None else jax.random.split(key, num_groups)
        for key_group in keys:
            logits = model.posterior_logits(groups)
            bits = (
                (logits > 0).astype(logits.dtype)
                if key_group is None
                else bernoulli.sample(key_group, logits)
            )
            groups.append(bits)
        return jnp.concatenate(groups, -1).astype(jnp.uint8)

    def mean_image(
        self, params: PyTree, codes: jax.Array, *, labels: jax.Array | None = None
    ) -> jax.Array:
        """Evaluates E[x | z], differentiable: float32 levels [N, *image_shape] in [0, 255].

        Args:
            params: of the model.
            codes: bits [N, n], or floats that relax them.
            labels: of the images, where the model has labels.
        """
        *ends, _ = itertools.accumulate(self.network.group_sizes)
        groups = jnp.split(codes.astype(jnp.float32), ends, axis=-1)
        logits = self._run(params, mlp.BinaryVAE.pixel_logits, groups, labels)
        return (255 * jax.nn.sigmoid(logits)).reshape(len(codes), *self.image_shape)

    def decode(
        self, params: PyTree, codes: jax.Array, *, labels: jax.Array | None = None
    ) -> jax.Array:
        """Rounds the pixels' probabilities to levels 0..255: uint8 [N, *image_shape]."""
        return jnp.round(self.mean_image(params, codes, labels=labels)).astype(jnp.uint8)

    def reconstruct(
        self,
        params: PyTree,
        key: jax.Array | None,
        images: jax.Array,
        *,
        labels: jax.Array | None = None,
    ) -> jax.Array:
        """Encodes and decodes images [N, *image_shape]."""
        codes = self.encode(params, key, images, labels=labels)
        return self.decode(params, codes, labels=labels)

    def sample(
        self,
        params: PyTree,
        key: jax.Array,
        *,
        num_images: int,
        labels: jax.Array | None = None,
    ) -> jax.Array:
        """Decodes bits drawn from the prior: uint8 [num_images, *image_shape].

        Those of a machine are drawn as `models.boltzmann.sample` says, or `models.labeled_machine`.
        Of a model with labels each image is one of its label.
        """
        num_groups = len(self.network.group_sizes)
        groups: list[jax.Array] = []
        if self.network.directed:
            for key_group in jax.random.split(key, num_groups):
                logits = self._run(params, mlp.BinaryVAE.prior_logits, groups, labels)
                shape = () if groups or self.num_labels else (num_images,)
                groups.append(bernoulli.sample(key_group, logits, shape))
        else:
            sizes = {"num_groups": num_groups, "num_labels": self.num_labels}
            groups = _machine.sample(key, params, num_images, **sizes, labels=labels)
        return self.decode(params, jnp.concatenate(groups, -1), labels=labels)

    def _draws(
        self, params: PyTree, images: jax.Array, labels: jax.Array | None
    ) -> tuple[Any, jax.Array]:
        """Returns the function that draws all groups, and the first group's logits."""
        model, log_prior = self._bind(params, images, labels), None
        if not self.network.directed:
            log_prior = functools.partial(_machine.log_prob, params, labels=labels)
        num_groups = len(self.network.group_sizes)
        draw = lambda key: binary.ancestral(key, model, num_groups, log_prior=log_prior)
        return draw, model.posterior_logits([])

    def evaluate(
        self,
        params: PyTree,
        key: jax.Array,
        images: jax.Array,
        *,
        num_samples: int,
        labels: jax.Array | None = None,
    ) -> Terms:
        """Estimates log-likelihood and ELBO.

        Args:
            params: of the model.
            key: typed PRNG key.
            images: [N, ...] of as many pixels as the model has, 0 or 1.
            num_samples: K, importance samples of the log-likelihood.
            labels: of the images, where the model has labels.
        """
        draw, logits = self._draws(params, images, labels)
        key_weights, key_elbo = jax.random.split(key)
        estimate = bounds.log_likelihood(
            key_weights,
            lambda key: _log_weight(draw(key)),
            num_samples=num_samples,
            chunk_size=_CHUNK_SIZE,
        )
        sample = draw(key_elbo)
        kl = jnp.moveaxis(sample.log_ratios, 0, -1)
        mean = jax.nn.sigmoid(logits)
        return Terms(estimate.value, estimate.ess, _log_weight(sample), kl, mean)

    def elbo(
        self,
        params: PyTree,
        key: jax.Array,
        images: jax.Array,
        *,
        labels: jax.Array | None = None,
    ) -> jax.Array:
        """Estimates the ELBO with one sample, nats [N]; see `evaluate`, whose it is."""
        draw, _ = self._draws(params, images, labels)
        return _log_weight(draw(jax.random.split(key)[1]))

    def log_likelihood(
        self,
        params: PyTree,
        key: jax.Array,
        images: jax.Array,
        *,
        num_samples: int,
        labels: jax.Array | None = None,
    ) -> jax.Array:
        """Estimates log p(x) by importance samples, nats [N]; see `evaluate`, whose it is."""
        terms = self.evaluate(params, key, images, num_samples=num_samples, labels=labels)
        return terms.log_likelihood


def _log_weight(sample: binary.Draw) -> jax.Array:
    return sample.log_likelihood - sample.log_ratios.sum(0)
