"""Convolutions of the image models, in the form that each platform runs fastest.

On GPU and TPU they are `lax.conv_general_dilated`, the transposed one as the gradient of a strided
one. On the CPU XLA runs strided convolutions, and the weight gradient of transposed ones, as slow
loops; there the same linear maps are shifted slices and one matrix product: stride 2 as
space-to-depth, the transposed convolution in sub-pixel form.
`use_matmul` is the one place that chooses; both forms take the same kernels and are tested equal.

Parameters are float32. Products take operands in `dtype`, accumulate in float32 and return `dtype`;
the gradient of a kernel is accumulated and returned in float32. All of it differentiates in either
mode and to any order (see `products`).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from dvae._numerics import wide_dtype
from dvae.models import checks
from dvae.models.products import conv_transpose_by_gradient, matmul

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def use_matmul() -> bool:
    """Whether convolutions are matrix products on this platform."""
    return jax.default_backend() == "cpu"


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds a bias over the last axes, in x's dtype, with sums (its gradient's too) in float32."""
    expanded = jnp.expand_dims(bias.astype(wide_dtype(x)), range(x.ndim - bias.ndim))
    return (x.astype(wide_dtype(x)) + expanded).astype(x.dtype)


def _patches(x: jax.Array, size: int, height: int, width: int) -> jax.Array:
    """Channels of every size x size window of x, [B, height, width, size * size * C]."""
    windows = [x[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
    return windows[0] if size == 1 else jnp.concatenate(windows, axis=-1)


def _conv_matmul(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    size, _, features_in, features = kernel.shape
    if stride == 1:
        pad = (size - 1) // 2
        height, width = x.shape[1:3]
        x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        return matmul(_patches(x, size, height, width), kernel.reshape(-1, features))
    # size 4, stride 2: fold every 2x2 block into the channels, then a 2x2 convolution.
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    batch, height, width, _ = x.shape
    # An axis at a time: meshes with explicit axes know where a sharded batch goes in one split.
    x = x.reshape(batch, height // 2, 2, width, features_in)
    x = x.reshape(batch, height // 2, 2, width // 2, 2, features_in).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, height // 2, width // 2, 4 * features_in)
    kernel = kernel.reshape(2, 2, 2, 2, features_in, features).transpose(0, 2, 1, 3, 4, 5)
    return matmul(_patches(x, 2, height // 2 - 1, width // 2 - 1), kernel.reshape(-1, features))


def phase_patches(x: jax.Array) -> list[jax.Array]:
    """The 2x2 windows of x that each phase of the output sees: four of [B, H, W, 4 I].

    Phase 2 a + b makes the output pixels (2 i + a, 2 j + b) from rows i + a - 1 and i + a of the
    input, and columns likewise.
    """
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [_patches(x[:, a:, b:], 2, height, width) for a in range(2) for b in range(2)]


def phase_taps(kernel: jax.Array) -> list[jax.Array]:
    """The matrices [4 I, O] that multiply `phase_patches`, from a kernel [4, 4, I, O]."""
    features = kernel.shape[-1]
    return [kernel[a::2, b::2].reshape(-1, features) for a in range(2) for b in range(2)]


def join_phase_taps(taps: list[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """Undoes `phase_taps`."""
    _, _, features_in, features = shape
    grid = jnp.stack(taps).reshape(2, 2, 2, 2, features_in, features)  # a, b, row, column
    return grid.transpose(2, 0, 3, 1, 4, 5).reshape(shape)


def _conv_transpose_matmul(x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
    """Phases of the output in the order of `phase_patches`, each [B, H, W, O]."""
    # Half precision would round every tap's product before they are added.
    if 4 * kernel.shape[3] < kernel.shape[2] and x.dtype == jnp.float32:
        return _conv_transpose_scattered(x, kernel)
    return [matmul(p, w) for p, w in zip(phase_patches(x), phase_taps(kernel), strict=True)]


def _conv_transpose_scattered(x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
    """The same: every tap's product first, then sums of those that meet at a pixel.

    Moves 16 O numbers a position where the windows have 16 I, so it is for few output channels.
    """
    features_in, features = kernel.shape[2:]
    products = matmul(x, kernel.transpose(2, 0, 1, 3).reshape(features_in, 16 * features))
    products = products.reshape(*x.shape[:3], 4, 4, features)
    products = jnp.pad(products, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0), (0, 0)))
    height, width = x.shape[1:3]

    def phase(a: int, b: int) -> jax.Array:
        meeting = [
            products[:, a + s : a + s + height, b + t : b + t + width, a + 2 * s, b + 2 * t]
            for s in range(2)
            for t in range(2)
        ]
        return sum(meeting[1:], meeting[0])

    return [phase(a, b) for a in range(2) for b in range(2)]


def _check(x: jax.Array, kernel: jax.Array) -> None:
    checks.check_floats("kernel", kernel, ("K", "K", "I", "O"))
    checks.check_floats("x", x, ("B", "H", "W", kernel.shape[2]))


def conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
    """Convolves with `SAME` padding, so that the output is 1/stride of the input's size.

    Args:
      x: [B, H, W, I], in the compute dtype.
      kernel: [K, K, I, O]; K odd for stride 1, K = 4 for stride 2.
      stride: 1 or 2.

    Returns:
      [B, H / stride, W / stride, O] in x's dtype.

    Raises:
      ValueError: the shapes do not fit, or x is not of floats.
    """
    _check(x, kernel)
    size = kernel.shape[0]
    if (stride, size % 2) != (1, 1) and (stride, size) != (2, 4):
        raise ValueError(
            f"conv needs an odd kernel at stride 1 or a 4x4 at stride 2, got {size}, {stride}"
        )
    if stride == 2 and (x.shape[1] % 2 or x.shape[2] % 2):
        raise ValueError(f"conv with stride 2 needs even image sizes, got {x.shape[1:3]}")
    if use_matmul():
        return _conv_matmul(x, kernel, stride)
    pad = (size - 1) // 2
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=_DIMENSIONS,
    )


def conv_transpose(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Doubles the size of x [B, H, W, I] by a 4x4 transposed convolution to [B, 2H, 2W, O].

        out[2 i + a] = sum over s in {0, 1} of x[i + a + s - 1] kernel[a + 2 s], in each axis.

    Args:
      x: [B, H, W, I], in the compute dtype.
      kernel: [4, 4, I, O].

    Returns:
      [B, 2H, 2W, O] in x's dtype.

    Raises:
      ValueError: the shapes do not fit, or x is not of floats.
    """
    _check(x, kernel)
    if kernel.shape[0] != 4:
        raise ValueError(f"conv_transpose needs a 4x4 kernel, got {kernel.shape}")
    if use_matmul():
        return join_pieces(_conv_transpose_matmul(x, kernel))
    return conv_transpose_by_gradient(x, kernel)


def conv_transpose_pieces(x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
    """Computes `conv_transpose` in the pieces in which the platform produces it.

    On the CPU these are the four phases [B, H, W, O] of the output pixels, which are costly to
    interleave when O is 768; elsewhere the one whole output. `split_like_pieces` cuts an image the
    same way.
    """
    _check(x, kernel)
    if use_matmul():
        return _conv_transpose_matmul(x, kernel)
    return [conv_transpose(x, kernel)]


def split_like_pieces(images: jax.Array) -> list[jax.Array]:
    """Cuts images [B, 2H, 2W, ...] into the pieces of `conv_transpose_pieces`.

    Raises:
      ValueError: an odd height or width, of which the pieces would differ.
    """
    if images.ndim < 3 or images.shape[1] % 2 or images.shape[2] % 2:
        raise ValueError(f"images must be [B, 2H, 2W, ...], got shape {images.shape}")
    if use_matmul():
        return [images[:, a::2, b::2] for a in range(2) for b in range(2)]
    return [images]


def join_pieces(pieces: list[jax.Array]) -> jax.Array:
    """Undoes `split_like_pieces`: pieces of [B, H, W, ...] to images [B, 2H, 2W, ...]."""
    if not use_matmul():
        return pieces[0]
    batch, height, width, *rest = pieces[0].shape
    rows = [jnp.stack(pieces[2 * a : 2 * a + 2], axis=3) for a in range(2)]
    grid = jnp.stack(rows, axis=2).reshape(batch, 2 * height, width, 2, *rest)
    return grid.reshape(batch, 2 * height, 2 * width, *rest)


class Conv(nn.Module):
    """Convolution with bias: floats [B, H, W, I] to [B, H / stride, W / stride, features]."""

    features: int
    size: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        checks.check_floats("x", x, ("B", "H", "W", "I"))
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return add_bias(conv(x.astype(self.dtype), kernel, stride=self.stride), bias)


class ConvTranspose(nn.Module):
    """Transposed 4x4 convolution with bias: floats [B, H, W, I] to [B, 2H, 2W, features]."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        checks.check_floats("x", x, ("B", "H", "W", "I"))
        shape = (4, 4, x.shape[-1], self.features)
        kernel = self.param("kernel", transpose_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return add_bias(conv_transpose(x.astype(self.dtype), kernel), bias)


# Only a quarter of the taps of a stride-2 transposed convolution meet at one output pixel.
transpose_init = nn.initializers.variance_scaling(8.0, "fan_in", "truncated_normal")


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))) (van den Oord et al. 2017, section 4.1).

    The last kernel starts at zero: the block is the identity at first, and a stack of them keeps
    its scale.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = Conv(self.features, 3, dtype=self.dtype)(nn.relu(x))
        zeros = nn.initializers.zeros
        y = Conv(x.shape[-1], 1, dtype=self.dtype, kernel_init=zeros)(nn.relu(y))
        return x + y
