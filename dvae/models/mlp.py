"""Binary VAEs on vectors of binary pixels: affine maps or deep networks between groups of bits.

    x [..., D]  --posterior_logits-->  logits of q(z_1 | x), q(z_2 | x, zeta_1), ...   [..., n]
    zeta_1, zeta_2, ...  --prior_logits-->  logits of p(z_1), p(z_2 | zeta_1), ...     [..., n]
    zeta_1, zeta_2, ...  --pixel_logits-->  logits of p(x | zeta)                      [..., D]

Vahdat et al., "DVAE++" (2018), figs. 2(a) to 2(f) and sec. 7.1. A group's network sees the groups
before it as they are given to it: relaxed samples zeta while training, bits z at test time. Without
hidden layers every map is affine ("linear"), with two of them it is the paper's "nonlinear".

With `num_labels` all of this is given the image's label y, too: q(z | x, y), p(z | y) and
p(x | z, y) see it one-hot, [..., C]. Logits of p(z_1 | y) are linear in it: a row for each label.
With `real_labels` y is a vector of C real numbers, seen as it is, and these logits are y W + b.
Of one-hot labels the rows of W hold b already. A prior that is a machine is not part of this model:
see `labeled_machine`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from dvae.models import checks

__all__ = ["ACTIVATIONS", "BinaryVAE", "BinaryVAEConfig", "Mlp"]

# Of hidden layers, by name; the slope is that of the line of DisARM (Dong et al., 2020).
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "leaky_relu": lambda x: nn.leaky_relu(x, negative_slope=0.3),
}
BATCH_NORM_MOMENTUM, BATCH_NORM_EPSILON = 0.8, 1e-2  # of the published models


def _product_in(dtype: DTypeLike) -> Callable[..., jax.Array]:
    """Returns `lax.dot_general` of operands rounded to dtype, summed in at least float32."""

    def dot_general(
        x: jax.Array,
        kernel: jax.Array,
        dimensions: lax.DotDimensionNumbers,
        precision: lax.PrecisionLike,
    ) -> jax.Array:
        wide = jnp.promote_types(jnp.result_type(x, kernel), jnp.float32)
        operands = x.astype(dtype), kernel.astype(dtype)
        return lax.dot_general(
            *operands, dimensions, precision=precision, preferred_element_type=wide
        )

    return dot_general


class Mlp(nn.Module):
    """Hidden layers and an affine output named `output`; floats [..., I] to [..., num_outputs].

    With `batch_norm` each layer is normalized before its activation, over all axes but the last: by
    the batch's moments where `train`, else by their moving averages in `batch_stats`.
    """

    hidden: tuple[int, ...]
    num_outputs: int
    batch_norm: bool = False
    train: bool = False
    product_dtype: DTypeLike | None = None  # as in BinaryVAEConfig
    activation: str = "tanh"  # of `ACTIVATIONS`

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps floats [..., I] to [..., num_outputs]."""
        checks.check_floats("x", x, ("...", "I"))
        product = None if self.product_dtype is None else _product_in(self.product_dtype)
        for i, features in enumerate(self.hidden):
            x = nn.Dense(
                features,
                use_bias=not self.batch_norm,
                dot_general=product,
                name=f"hidden_{i}",
            )(x)
            if self.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not self.train,
                    momentum=BATCH_NORM_MOMENTUM,
                    epsilon=BATCH_NORM_EPSILON,
                    name=f"norm_{i}",
                )(x)
            x = ACTIVATIONS[self.activation](x)
        return nn.Dense(self.num_outputs, dot_general=product, name="output")(x)


@dataclass(frozen=True)
class BinaryVAEConfig:
    """Sizes of the model."""

    group_sizes: tuple[int, ...] = (200,)  # bits of each group, in the order of q and p
    hidden: tuple[int, ...] = ()  # widths of the hidden layers of every network
    num_pixels: int = 784
    signed_inputs: bool = True  # networks see 2 zeta - 1, centered like the pixels, or zeta itself
    directed: bool = True  # p(z) is a chain of networks; else it is not part of this model
    batch_norm: bool = False  # before every activation
    # Of the operands of matrix products; sums, biases and activations stay float32. None: theirs.
    product_dtype: DTypeLike | None = None
    activation: str = "tanh"  # of the hidden layers, a name of `ACTIVATIONS`
    num_labels: int = 0  # C, of which each image has one that all networks see; 0: they see none
    real_labels: bool = False  # an image's label is a vector of C numbers, not one of C classes

    def __post_init__(self) -> None:
        """Raises ValueError for sizes that make no model."""
        if not self.group_sizes or min(self.group_sizes) < 1:
            raise ValueError(
                f"group_sizes must name at least one group of at least 1 bit, got "
                f"{self.group_sizes}"
            )
        checks.check_sizes(num_pixels=self.num_pixels, hidden=min(self.hidden, default=1))
        if self.num_labels < 0:
            raise ValueError(f"num_labels must be at least 0, got {self.num_labels}")
        if self.real_labels and not (self.num_labels and self.directed):
            raise ValueError(
                "real_labels needs num_labels above 0 and a directed prior, got num_labels="
                f"{self.num_labels} and directed={self.directed}"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}"
            )


class BinaryVAE(nn.Module):
    """The networks and the prior; see the module's docstring for the shapes."""

    config: BinaryVAEConfig
    train: bool = False  # batch norm takes the moments of the batch and updates its averages

    def setup(self) -> None:
        """Makes a network for each group and the pixels, and for the prior where it is directed."""
        c = self.config
        network = lambda size: Mlp(
            c.hidden, size, c.batch_norm, self.train, c.product_dtype, c.activation
        )
        self.encoders = [network(size) for size in c.group_sizes]
        self.decoder = network(c.num_pixels)
        if c.directed:
            self.priors = [network(size) for size in c.group_sizes[1:]]
            shape = (*([c.num_labels] if c.num_labels else []), c.group_sizes[0])
            self.first_prior_logits = self.param(
                "prior_logits", nn.initializers.zeros, shape, jnp.float32
            )
            if c.real_labels:
                self.first_prior_bias = self.param(
                    "prior_bias", nn.initializers.zeros, shape[1:], jnp.float32
                )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Runs every network once, in order to make its parameters; returns pixel logits."""
        c = self.config
        labels = jnp.zeros((len(x), c.num_labels)) if c.num_labels else None
        groups: list[jax.Array] = []
        for _ in c.group_sizes:
            groups.append(self.posterior_logits(x, groups, labels))
            if c.directed:
                self.prior_logits(groups[:-1], labels)
        return self.pixel_logits(groups, labels)

    def posterior_logits(
        self, x: jax.Array, earlier: Sequence[jax.Array], labels: jax.Array | None = None
    ) -> jax.Array:
        """Evaluates the logits of q(z_g | x, earlier groups), g = len(earlier), [..., n].

        Args:
            x: [..., D] float pixels, less their training mean.
            earlier: samples of the groups before, each float [..., n]; leading axes broadcast.
            labels: float [..., C], one-hot or real, if the model has labels.

        Raises:
            ValueError: a dtype or a last axis is another, no group comes after the earlier ones, or
                labels are missing or in vain.
        """
        checks.check_floats("x", x, ("...", self.config.num_pixels))
        self._check_groups("earlier", earlier, len(self.config.group_sizes) - 1)
        return self.encoders[len(earlier)](
            _join([x, *self._labels(labels), *self._inputs(earlier)])
        )

    def prior_logits(
        self, earlier: Sequence[jax.Array], labels: jax.Array | None = None
    ) -> jax.Array:
        """Evaluates the logits of p(z_g | earlier groups), [..., n]; [n] for the first group.

        Args:
            earlier: samples of the groups before, each float [..., n].
            labels: float [..., C], one-hot or real, if the model has labels; the first group's
                logits are then [..., n].

        Raises:
            ValueError: a dtype or a last axis is another, there are too many groups, the model has
                no directed prior, or labels are missing or in vain.
        """
        if not self.config.directed:
            raise ValueError("this model has directed=False: its prior p(z) is not part of it")
        self._check_groups("earlier", earlier, len(self.config.group_sizes) - 1)
        seen = self._labels(labels)
        if not earlier:
            if not seen:
                return self.first_prior_logits
            logits = seen[0] @ self.first_prior_logits
            if not self.config.real_labels:
                return logits
            return logits + jnp.broadcast_to(self.first_prior_bias, logits.shape)
        return self.priors[len(earlier) - 1](_join([*seen, *self._inputs(earlier)]))

    def pixel_logits(
        self, groups: Sequence[jax.Array], labels: jax.Array | None = None
    ) -> jax.Array:
        """Evaluates the logits of p(x | all groups), [..., D].

        Args:
            groups: samples, each float [..., n].
            labels: float [..., C], one-hot or real, if the model has labels.

        Raises:
            ValueError: a dtype or a last axis is another, a group is missing, or labels are missing
                or in vain.
        """
        if len(groups) != len(self.config.group_sizes):
            raise ValueError(
                f"groups must be all {len(self.config.group_sizes)} groups, got {len(groups)}"
            )
        self._check_groups("groups", groups, len(groups))
        return self.decoder(_join([*self._labels(labels), *self._inputs(groups)]))

    def _labels(self, labels: jax.Array | None) -> list[jax.Array]:
        """Returns what the networks see of the labels: nothing, where the model has none."""
        if (labels is None) == bool(self.config.num_labels):
            raise ValueError(
                f"a model with num_labels={self.config.num_labels} takes "
                f"{'labels' if labels is None else 'no labels'}"
            )
        if labels is None:
            return []
        checks.check_floats("labels", labels, ("...", self.config.num_labels))
        return [labels]

    def _check_groups(self, name: str, groups: Sequence[jax.Array], most: int) -> None:
        if len(groups) > most:
            raise ValueError(f"{name} must be at most {most} groups of bits, got {len(groups)}")
        for i, (zeta, size) in enumerate(zip(groups, self.config.group_sizes, strict=False)):
            checks.check_floats(f"{name}[{i}]", zeta, ("...", size))

    def _inputs(self, groups: Sequence[jax.Array]) -> list[jax.Array]:
        """Returns what the networks see of the latents."""
        return [2 * zeta - 1 for zeta in groups] if self.config.signed_inputs else list(groups)


def _join(arrays: Sequence[jax.Array]) -> jax.Array:
    """Concatenates along the last axis, after broadcasting the leading ones (samples)."""
    if len(arrays) == 1:
        return arrays[0]
    batch = jnp.broadcast_shapes(*(a.shape[:-1] for a in arrays))
    return jnp.concatenate([jnp.broadcast_to(a, (*batch, a.shape[-1])) for a in arrays], -1)
