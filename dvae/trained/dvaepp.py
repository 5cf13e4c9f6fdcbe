"""What a trained model of `dvaepp` does: images by global bits over groups of local variables.

Codes are `Latents`. Everything is in the binary limit. The parameters are {"network": those of
`models.dvaepp`}; of Bernoulli priors "prior", the logits [layers, n]; of Boltzmann priors "prior",
"log_z" and "chains", as in `trained.binary_vae`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from dvae import bounds
from dvae.models import checks, dvaepp, dvaepp_latents
from dvae.models.dvaepp_latents import BERNOULLI, BOLTZMANN, GENERAL, NORMAL
from dvae.trained._machine import NO_GRAPH, Topology, abstract_machine, check_chains

__all__ = ["Functions", "Latents", "Terms"]

PyTree = Any
_Networks = tuple[Callable[..., Any], dvaepp.Features, dvaepp_latents.Posterior]


class Latents(NamedTuple):
    """The latent variables of N images: bits, or normal variables as they are."""

    global_: jax.Array  # uint8 or float32 [N, n], all layers
    local: jax.Array  # float32 or uint8 [N, groups, h, w, m]


class Terms(NamedTuple):
    """What is estimated of N images."""

    log_likelihood: jax.Array  # [N] nats, K samples
    ess: jax.Array  # [N] effective number of them
    elbo: jax.Array  # [N] nats, one sample
    kl: jax.Array  # [N, 1 + groups] nats, log q - log p of that sample: global, local groups


@dataclass(frozen=True)
class Functions:
    """Pure functions of the parameters of a model with these sizes."""

    kind: ClassVar[str] = "dvaepp"

    network: dvaepp.DVAEPPConfig
    global_latents: str
    local_latents: str
    num_chains: int = 0  # of a Boltzmann prior
    weighted_chains: bool = False  # they are those of population annealing
    topology: Topology = NO_GRAPH  # of a machine on a graph

    def __post_init__(self) -> None:
        """Raises ValueError for settings that make no model."""
        if self.global_latents not in (NORMAL, BERNOULLI, *BOLTZMANN):
            raise ValueError(
                f"global_latents must be normal, bernoulli, {', '.join(BOLTZMANN[:-1])} or "
                f"{BOLTZMANN[-1]}, got {self.global_latents}"
            )
        if self.local_latents not in (NORMAL, BERNOULLI):
            raise ValueError(f"local_latents must be normal or bernoulli, got {self.local_latents}")
        if len(set(self.network.global_sizes)) != 1:
            raise ValueError(
                f"layers of global variables must be alike, got {self.network.global_sizes}"
            )
        check_chains(self.num_chains, needed=self.global_latents in BOLTZMANN)
        if (self.topology == NO_GRAPH) == (self.global_latents == GENERAL):
            raise ValueError(f"global_latents={GENERAL} has a graph, and nothing else has")

    @property
    def pixels(self) -> str:
        """Kind of the pixels, see `models.checks`."""
        return checks.LEVELS if self.network.decoder.num_mixtures else checks.BITS

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        c = self.network.decoder
        return *c.sides, c.channels

    @property
    def num_groups(self) -> int:
        """Layers of global variables."""
        return len(self.network.global_sizes)

    @property
    def num_latents(self) -> int:
        """Global variables of a layer."""
        return self.network.global_sizes[0]

    def abstract_params(self) -> PyTree:
        """Returns shapes and dtypes of the parameters."""
        blank = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.uint8)
        init = lambda *args: dvaepp.DVAEPP(self.network).init(*args)["params"]
        params = {"network": jax.eval_shape(init, jax.random.key(0), blank)}
        layers, n = self.num_groups, self.num_latents
        if self.global_latents in BOLTZMANN:
            params |= abstract_machine(
                layers * n, self.num_chains, self.topology, weighted=self.weighted_chains
            )
        elif self.global_latents == BERNOULLI:
            params["prior"] = jax.ShapeDtypeStruct((layers, n), jnp.float32)
        return params

    def check_images(self, images: Any) -> None:
        """Raises ValueError unless images are [N, *image_shape], of the model's kind of pixels."""
        checks.check_images(images, kind=self.pixels, shape=("N", *self.image_shape))

    def check_codes(self, codes: Any) -> None:
        """Raises ValueError unless codes are the `Latents` of this model."""
        if not isinstance(codes, tuple) or len(codes) != 2:
            raise ValueError(f"codes must be Latents(global_, local), got {type(codes).__name__}")
        c = self.network
        shapes = (
            ("N", sum(c.global_sizes)),
            (len(codes[0]), c.local_groups, *c.local_sides, c.local_size),
        )
        kinds = self.global_latents, self.local_latents
        for name, values, shape, kind in zip(Latents._fields, codes, shapes, kinds, strict=True):
            if kind == NORMAL:
                checks.check_floats(f"codes.{name}", values, shape)
            else:
                checks.check_images(values, kind=checks.BITS, shape=shape, name=f"codes.{name}")

    def _run(self, params: PyTree) -> Callable[..., Any]:
        module = dvaepp.DVAEPP(self.network)
        return lambda method, *args: module.apply(
            {"params": params["network"]}, *args, method=method
        )

    def _encoder(self, params: PyTree, images: jax.Array) -> _Networks:
        """Returns the networks, the images' features, and q(z_i | x, zeta_<i) by its parameters."""
        run = self._run(params)
        features = run(dvaepp.DVAEPP.encode, images)
        first = run(dvaepp.DVAEPP.global_posterior, features, [])  # the same in every sample
        later = lambda earlier: run(dvaepp.DVAEPP.global_posterior, features, earlier)
        return run, features, lambda earlier: later(earlier) if earlier else first

    def _infer(
        self,
        params: PyTree,
        key_global: jax.Array | None,
        key_local: jax.Array | None,
        images: jax.Array,
    ) -> tuple[jax.Array, Latents]:
        """Draws all variables from their posterior; returns the context and them."""
        run, features, posterior = self._encoder(params, images)
        unknown = jnp.zeros(())  # log Z changes no sample
        prior = params.get("prior", ())
        drawn = dvaepp_latents.draw_globals(key_global, self, posterior, prior, unknown)
        draw = dvaepp_latents.mode_local if key_local is None else dvaepp_latents.draw_local
        of_group = draw(self)

        def draw_and_show(key: jax.Array, q: jax.Array | None, p: jax.Array) -> Any:
            h, _ = of_group(key, q, p)
            return h, h

        context, local = run(
            dvaepp.DVAEPP.local_groups,
            jax.random.key(0) if key_local is None else key_local,
            run(dvaepp.DVAEPP.expand, drawn.seen),
            features,
            draw_and_show,
        )
        if not self.network.local_groups:
            sides, size = self.network.local_sides, self.network.local_size
            local = jnp.zeros((0, len(images), *sides, size))
        latents = Latents(
            _as_codes(jnp.concatenate(drawn.seen, -1), self.global_latents),
            _as_codes(jnp.moveaxis(local, 0, 1), self.local_latents),
        )
        return context, latents

    def encode(self, params: PyTree, key: jax.Array | None, images: jax.Array) -> Latents:
        """Draws the latent variables, layer by layer and group by group.

        Without a key each is at the mode of its posterior, given those before.

        Args:
            params: of the model.
            key: typed PRNG key, or None.
            images: [N, *image_shape].
        """
        keys = (None, None) if key is None else jax.random.split(key)
        return self._infer(params, keys[0], keys[1], images)[1]

    def decode(self, params: PyTree, codes: Latents, *, key: jax.Array | None = None) -> jax.Array:
        """Makes images of latent variables, uint8 levels [N, *image_shape].

        Color pixels, and those of coarser scales, are drawn; the rest are means.

        Args:
            params: of the model.
            codes: of `encode`.
            key: of the draws; by default a fixed one.
        """
        run, seen = self._run(params), _as_seen(codes.global_, self.global_latents)
        context = run(dvaepp.DVAEPP.expand, jnp.split(seen, self.num_groups, axis=-1))
        local = jnp.moveaxis(_as_seen(codes.local, self.local_latents), 1, 0)
        context = run(dvaepp.DVAEPP.embed_groups, context, local)
        return self._picture(params, jax.random.key(0) if key is None else key, context)

    def _picture(self, params: PyTree, key: jax.Array, context: jax.Array) -> jax.Array:
        run = self._run(params)
        if self.pixels == checks.LEVELS:
            return run(dvaepp.DVAEPP.generate, key, context)
        means = run(dvaepp.DVAEPP.generate_mean, key, context)
        return jnp.round(255 * means).astype(jnp.uint8)

    def reconstruct(self, params: PyTree, key: jax.Array, images: jax.Array) -> jax.Array:
        """Draws p(x | z, h) at z, h ~ q: uint8 levels [N, *image_shape]."""
        key_global, key_local, key_image = jax.random.split(key, 3)
        context, _ = self._infer(params, key_global, key_local, images)
        return self._picture(params, key_image, context)

    def sample(
        self, params: PyTree, key: jax.Array, *, num_images: int, num_each: int = 1
    ) -> jax.Array:
        """Draws images from the model: uint8 levels [num_images * num_each, *image_shape].

        The bits of a Boltzmann machine are drawn as `models.boltzmann.sample` says.

        Args:
            params: of the model.
            key: typed PRNG key.
            num_images: draws of the global variables.
            num_each: images of each, which differ in all else.
        """
        run = self._run(params)
        key_global, key_local, key_image = jax.random.split(key, 3)
        prior, chains = params.get("prior", ()), params.get("chains")
        seen = dvaepp_latents.prior_globals(key_global, self, prior, chains, num_images)
        repeated = [jnp.repeat(values, num_each, axis=0) for values in seen]
        context = run(dvaepp.DVAEPP.expand, repeated)
        draw_local = dvaepp_latents.draw_local(self)
        groups = dvaepp.DVAEPP.local_groups
        context, _ = run(groups, key_local, context, None, draw_local)
        return self._picture(params, key_image, context)

    def _log_weights(
        self, params: PyTree, images: jax.Array
    ) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
        """Returns key -> log-weights [N] and log q - log p [1 + groups, N] of a sample."""
        run, features, posterior = self._encoder(params, images)
        draw_local, prior = dvaepp_latents.draw_local(self), params.get("prior", ())

        def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            key_global, key_local = jax.random.split(key)
            drawn = dvaepp_latents.draw_globals(
                key_global, self, posterior, prior, params.get("log_z")
            )
            context = run(dvaepp.DVAEPP.expand, drawn.seen)
            groups = dvaepp.DVAEPP.local_groups
            context, local = run(groups, key_local, context, features, draw_local)
            log_px = run(dvaepp.DVAEPP.log_likelihood, context, images)
            ratios = jnp.concatenate([drawn.divergence[None], local])
            return log_px - ratios.sum(0), ratios

        return draw

    def evaluate(
        self, params: PyTree, key: jax.Array, images: jax.Array, *, num_samples: int
    ) -> Terms:
        """Estimates log-likelihood and ELBO.

        Args:
            params: of the model.
            key: typed PRNG key.
            images: [N, *image_shape].
            num_samples: K, importance samples of the log-likelihood.
        """
        draw = self._log_weights(params, images)
        key_weights, key_elbo = jax.random.split(key)
        estimate = bounds.log_likelihood(
            key_weights, lambda key: draw(key)[0], num_samples=num_samples, chunk_size=1
        )
        elbo, ratios = draw(key_elbo)
        return Terms(estimate.value, estimate.ess, elbo, ratios.T)

    def elbo(self, params: PyTree, key: jax.Array, images: jax.Array) -> jax.Array:
        """Estimates the ELBO with one sample, nats [N]; see `evaluate`, whose it is."""
        return self._log_weights(params, images)(jax.random.split(key)[1])[0]

    def log_likelihood(
        self, params: PyTree, key: jax.Array, images: jax.Array, *, num_samples: int
    ) -> jax.Array:
        """Estimates log p(x) by importance samples, nats [N]; see `evaluate`, whose it is."""
        return self.evaluate(params, key, images, num_samples=num_samples).log_likelihood


def _as_codes(seen: jax.Array, kind: str) -> jax.Array:
    """Returns bits of what networks see, 2 z - 1; normal variables as they are."""
    return seen if kind == NORMAL else ((seen + 1) / 2).astype(jnp.uint8)


def _as_seen(codes: jax.Array, kind: str) -> jax.Array:
    return codes if kind == NORMAL else 2 * codes.astype(jnp.float32) - 1
