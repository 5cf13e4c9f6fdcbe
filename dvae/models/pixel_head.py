"""The 256-way pixel likelihood: the model's last layer and its logits, by far its largest arrays.

A 4x4 transposed convolution turns features at half the image's size into 256 logits for every
sub-pixel. `PixelHead.log_likelihood` gives log p(x | z) of every image and composes with any
objective. Where only the sum over images is differentiated, as in an ELBO, `total_log_likelihood`
gives the same (in bfloat16 with unrounded logits), and on the CPU forms value and gradient in one
pass over a few images at a time, so that their logits stay in the cache and those of the whole
batch never exist. On one NVIDIA GPU log p of the logits is a kernel (`_level_kernel`), which
differentiates once, in reverse mode.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from dvae._numerics import partition, spec_of, vary_like, wide_dtype
from dvae.distributions import categorical
from dvae.models import _convolution, _gpu, _level_kernel, checks
from dvae.models._bias import add_bias
from dvae.models._products import matmul_transposed

__all__ = ["NUM_LEVELS", "PixelHead"]

NUM_LEVELS = 256
_CHUNK_ROWS = 1024  # output positions of a phase at a time: 3 MB of logits


class PixelHead(nn.Module):
    """Categorical over 256 levels of every sub-pixel, given x [B, H/2, W/2, F].

    Below, C is the number of channels: 3 for color, 1 for gray.
    """

    features: int
    dtype: DTypeLike = jnp.float32
    channels: int = 3

    def setup(self) -> None:
        """Makes the kernel and the bias, which `init` sets to the levels' log frequencies."""
        shape = (4, 4, self.features, self.channels * NUM_LEVELS)
        # A tenth of the usual scale: the first prediction is nearly the bias's.
        stddev = 0.1 * (4.0 * self.features) ** -0.5
        self.kernel = self.param("kernel", nn.initializers.normal(stddev), shape, jnp.float32)
        self.bias = self.param(
            "bias", nn.initializers.zeros, (self.channels, NUM_LEVELS), jnp.float32
        )

    def _logits(self, x: jax.Array) -> list[jax.Array]:
        """Computes logits [..., C, 256] in the pieces in which the platform makes them."""
        pieces = _convolution.conv_transpose_pieces(x.astype(self.dtype), self.kernel)
        return [add_bias(y.reshape(*y.shape[:-1], *self.bias.shape), self.bias) for y in pieces]

    def log_likelihood(self, x: jax.Array, images: jax.Array) -> jax.Array:
        """Returns log p(image) in nats, [B].

        Args:
            x: float [B, H/2, W/2, F].
            images: uint8 [B, H, W, C].

        Raises:
            ValueError: x or images are of another dtype or shape.
        """
        self._check(x, images)
        fits = _gpu.rows_of_block(images[..., 0].size, NUM_LEVELS) > 0
        is_narrow = max(jnp.dtype(self.dtype).itemsize, self.bias.dtype.itemsize) <= 4
        if fits and is_narrow and _gpu.uses_kernels(x, images):
            y = _convolution.conv_transpose(x.astype(self.dtype), self.kernel)
            y, levels = y.reshape(-1, *self.bias.shape), images.astype(jnp.int32)
            values = _level_kernel.log_prob(y, self.bias, levels.reshape(y.shape[:2]))
            return values.reshape(len(images), -1).sum(-1)
        targets = _convolution.split_like_pieces(images.astype(jnp.int32))
        terms = [
            categorical.log_prob_of_codes(target, logits).sum((1, 2, 3))
            for target, logits in zip(targets, self._logits(x), strict=True)
        ]
        return jnp.stack(terms).sum(0)

    def total_log_likelihood(self, x: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the sum of `log_likelihood` and, without gradient, its terms: [], [B] nats."""
        self._check(x, images)
        if _convolution.use_matmul():
            x = x.astype(self.dtype)
            inputs = x, self.kernel, self.bias, images.astype(jnp.int32)
            out_specs = PartitionSpec(), PartitionSpec(*spec_of(images)[:1])
            total, values = partition(_total, out_specs, *inputs)
        else:
            values = self.log_likelihood(x, images)
            total = values.sum()
        return total, lax.stop_gradient(values)

    def _check(self, x: jax.Array, images: jax.Array) -> None:
        checks.check_floats("x", x, ("B", "H/2", "W/2", self.features))
        batch, height, width, _ = x.shape
        shape = (batch, 2 * height, 2 * width, self.channels)
        checks.check_images(images, kind=checks.LEVELS, shape=shape)

    def mean(self, x: jax.Array) -> jax.Array:
        """Returns the mean pixel value, float32 [B, H, W, C] in [0, 255], of x as above."""
        checks.check_floats("x", x, ("B", "H/2", "W/2", self.features))
        levels = jnp.arange(NUM_LEVELS, dtype=jnp.float32)
        means = [
            jnp.matmul(nn.softmax(y.astype(jnp.float32)), levels, precision=lax.Precision.HIGHEST)
            for y in self._logits(x)
        ]
        return _convolution.join_pieces(means)


def _chunks(x: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cuts the batch into equal chunks of at most `_CHUNK_ROWS` positions, or one image."""
    batch, height, width, _ = x.shape
    size = max(1, min(batch, _CHUNK_ROWS // (height * width)))
    while batch % size:
        size -= 1
    cut = lambda y: y.reshape(batch // size, size, *y.shape[1:])
    return cut(x), cut(images)


def _rows(images: jax.Array) -> list[jax.Array]:
    """Returns the targets of each phase as [rows, C]."""
    return [piece.reshape(-1, piece.shape[-1]) for piece in _convolution.split_like_pieces(images)]


def _log_softmax_terms(
    patches: jax.Array, taps: jax.Array, bias: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns log p(target) [rows, C], exp(logits - max) and its sum, of one phase."""
    logits = jnp.matmul(patches, taps, preferred_element_type=wide_dtype(patches))
    logits = logits.reshape(-1, *bias.shape) + bias.astype(logits.dtype)[None]
    peak = lax.stop_gradient(logits.max(-1, keepdims=True))  # it cancels in all three
    mass = jnp.exp(logits - peak)
    total = mass.sum(-1, keepdims=True)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)
    return (chosen - peak - jnp.log(total))[..., 0], mass, total


@jax.custom_jvp
def _total(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Computes the log-likelihoods: their sum and, without gradient, one an image."""
    taps = _convolution.phase_taps(kernel.astype(x.dtype))

    def chunk(_: None, inputs: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        x, images = inputs
        values = jnp.zeros(x.shape[0], wide_dtype(x))
        for p, w, t in zip(_convolution.phase_patches(x), taps, _rows(images), strict=True):
            log_p = _log_softmax_terms(p.reshape(-1, p.shape[-1]), w, bias, t)[0]
            values += log_p.reshape(x.shape[0], -1).sum(-1)
        return None, values

    _, values = lax.scan(chunk, None, _chunks(x, images))
    values = values.reshape(-1)
    return values.sum(), values


@functools.partial(_total.defjvp, symbolic_zeros=True)
def _total_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Multiplies tangents by gradients, which are computed beside the value."""
    values, gradients = _values_and_gradients(*primals)
    change = jnp.zeros((), values.dtype)
    for gradient, tangent in zip(gradients, tangents[:3], strict=True):
        if not isinstance(tangent, SymbolicZero):
            change += (gradient.astype(change.dtype) * tangent.astype(change.dtype)).sum()
    return (values.sum(), values), (change, jnp.zeros_like(values))


def _values_and_gradients(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, images: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    """Computes log-likelihoods [B] and the gradients of their sum by x, kernel and bias."""
    dtype = wide_dtype(x)
    taps = _convolution.phase_taps(kernel.astype(x.dtype))
    levels = jnp.arange(NUM_LEVELS, dtype=jnp.int32)[None, None]

    def chunk(
        sums: tuple[list[jax.Array], jax.Array], inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[list[jax.Array], jax.Array], tuple[jax.Array, jax.Array]]:
        d_taps, d_bias = sums
        x, images = inputs
        patches, pull_back = jax.vjp(_convolution.phase_patches, x)
        values = jnp.zeros(x.shape[0], dtype)
        d_taps_new, d_patches = [], []
        for p, w, dw, t in zip(patches, taps, d_taps, _rows(images), strict=True):
            rows = p.reshape(-1, p.shape[-1])
            log_p, mass, total = _log_softmax_terms(rows, w, bias, t)
            values += log_p.reshape(x.shape[0], -1).sum(-1)
            d_logits = (levels == t[..., None]).astype(dtype) - mass / total
            d_bias += d_logits.sum(0)
            d_logits = d_logits.reshape(rows.shape[0], -1).astype(x.dtype)
            d_rows = jnp.matmul(d_logits, w.T, preferred_element_type=dtype)
            d_patches.append(d_rows.reshape(p.shape).astype(p.dtype))
            d_taps_new.append(dw + matmul_transposed(rows, d_logits))
        return (d_taps_new, d_bias), (values, pull_back(d_patches)[0])

    zeros = [jnp.zeros(w.shape, dtype) for w in taps], jnp.zeros(bias.shape, dtype)
    zeros = vary_like(zeros, x, kernel, bias, images)
    (d_taps, d_bias), (values, d_x) = lax.scan(chunk, zeros, _chunks(x, images))
    d_kernel = _convolution.join_phase_taps(d_taps, kernel.shape)
    gradients = d_x.reshape(x.shape), d_kernel.astype(kernel.dtype), d_bias.astype(bias.dtype)
    return values.reshape(-1), gradients
