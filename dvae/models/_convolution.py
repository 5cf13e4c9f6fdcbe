r"""Convolutions of the image models, in the form that each platform runs fastest.

On GPU and TPU they are `lax.conv_general_dilated`, the transposed one as the gradient of a strided
one. On the CPU XLA runs strided convolutions, and the weight gradient of transposed ones, as slow
loops; there the same linear maps are windows and one matrix product. The transposed convolution is
one of stride 2 backwards, or the four phases of its output.
`use_matmul` is the one place that chooses between these; both take the same kernels and are tested
equal.

The transposed convolution of stride 2 by a kernel k of size 4, in one axis:

    input     x[i-1]         x[i]         x[i+1]
                  \         /    \         /
                k[0] \   / k[2]  k[1] \  / k[3]
    output           y[2i]          y[2i+1]

An output pixel of even row sees x above and below by the taps 0 and 2, one of odd row by 1 and 3,
and so do columns. The pixels of one parity (a, b) are a phase, number 2 a + b: a convolution of x
with 2x2 taps of its own.

    phases of the output        input that the phase sees at (i, j)      its taps
      0 1 0 1 ...                 0: rows i-1, i   columns j-1, j          k[0::2, 0::2]
      2 3 2 3                     1: rows i-1, i   columns j, j+1          k[0::2, 1::2]
      0 1 0 1                     2: rows i, i+1   columns j-1, j          k[1::2, 0::2]
      2 3 2 3                     3: rows i, i+1   columns j, j+1          k[1::2, 1::2]

Parameters are float32. Products take operands in `dtype`, accumulate in float32 and return `dtype`;
the gradient of a kernel is accumulated and returned in float32. All of it differentiates in either
mode and to any order (see `_bilinear`).
"""

import jax
import jax.numpy as jnp
from jax import lax

from dvae.models import checks
from dvae.models._bilinear import Bilinear
from dvae.models._products import matmul

FEW = 16  # channels up to which other forms were faster (docs/results/cpu_speed.md)
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def use_matmul() -> bool:
    """Tells whether convolutions are matrix products on this platform."""
    return jax.default_backend() == "cpu"


def _patches(x: jax.Array, size: int, height: int, width: int) -> jax.Array:
    """Returns the channels of all windows of x, [B, height, width, size * size * C]."""
    windows = [x[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
    return windows[0] if size == 1 else jnp.concatenate(windows, axis=-1)


def _conv_matmul(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Computes `conv` as one product of windows and kernel."""
    size, features = kernel.shape[0], kernel.shape[-1]
    if stride == 1:
        pad = (size - 1) // 2
        height, width = x.shape[1:3]
        x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        if size > 1 and features <= FEW and width % 2 == 0:
            return _conv_by_pairs(x, kernel)
        return matmul(_patches(x, size, height, width), kernel.reshape(-1, features))
    return matmul(_strided_patches(x), kernel.reshape(-1, features))


def _conv_by_pairs(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves padded x [B, H + K - 1, W + K - 1, I], W even, two columns at once.

    A window of both has K + 1 columns, so less is copied than for two windows of K, and the product
    has 2 O columns. Each column has one tap more, which is zero.
    """
    size, _, channels, features = kernel.shape
    batch, height, width, _ = x.shape
    rows, pairs = height - size + 1, (width - size + 1) // 2
    # An axis at a time: meshes with explicit axes know where a sharded batch goes in one split.
    x = x.reshape(batch, height, width // 2, 2, channels)
    x = x.reshape(batch, height, width // 2, 2 * channels)
    starts = [(i, j) for i in range(size) for j in range((size + 1) // 2)]
    windows = jnp.concatenate([x[:, i : i + rows, j : j + pairs] for i, j in starts], axis=-1)
    taps = [jnp.pad(kernel, ((0, 0), (j, 1 - j), (0, 0), (0, 0))) for j in range(2)]
    y = matmul(windows, jnp.stack(taps, axis=3).reshape(-1, 2 * features))
    return y.reshape(batch, rows, pairs, 2, features).reshape(batch, rows, 2 * pairs, features)


def _strided_patches(x: jax.Array) -> jax.Array:
    """Returns the channels of 4x4 windows at stride 2 of x [B, H, W, C], [B, H/2, W/2, 16 C]."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    batch, height, width, channels = x.shape
    # Two columns are neighbors in memory: of four rows, a window has two such pairs.
    # An axis at a time: meshes with explicit axes know where a sharded batch goes in one split.
    x = x.reshape(batch, height // 2, 2, width, channels)
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    x = x.reshape(batch, height // 2, 2, width // 2, 2 * channels)
    rows, columns = height // 2 - 1, width // 2 - 1
    windows = [
        x[:, i : i + rows, row, j : j + columns]
        for i in range(2)
        for row in range(2)
        for j in range(2)
    ]
    return jnp.concatenate(windows, axis=-1)


def phase_patches(x: jax.Array) -> list[jax.Array]:
    """Returns the 2x2 windows of x that each phase of the output sees: four of [B, H, W, 4 I]."""
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [_patches(x[:, a:, b:], 2, height, width) for a in range(2) for b in range(2)]


def phase_taps(kernel: jax.Array) -> list[jax.Array]:
    """Returns the matrices [4 I, O] that multiply `phase_patches`, of a kernel [4, 4, I, O]."""
    features = kernel.shape[-1]
    return [kernel[a::2, b::2].reshape(-1, features) for a in range(2) for b in range(2)]


def join_phase_taps(taps: list[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """Undoes `phase_taps`."""
    _, _, features_in, features = shape
    grid = jnp.stack(taps).reshape(2, 2, 2, 2, features_in, features)  # a, b, row, column
    return grid.transpose(2, 0, 3, 1, 4, 5).reshape(shape)


def _conv_transpose_matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `conv_transpose` as one product, or as one for every phase.

    Many output channels have windows gathered before their products, 16 I numbers a position; few
    have the products added where they meet, 16 O numbers a position.
    """
    features_in, features = kernel.shape[2:]
    # Half precision would round every tap's product before they are added.
    if features >= features_in or x.dtype != jnp.float32:
        return join_pieces(_phases(x, kernel))
    taps = _mirrored(kernel).transpose(2, 0, 1, 3).reshape(features_in, 16 * features)
    batch, height, width, _ = x.shape
    out = jax.typeof(x).update(shape=(batch, 2 * height, 2 * width, features))
    (y,) = jax.linear_transpose(_strided_patches, out)(matmul(x, taps))
    return y


def _phases(x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
    """Computes the phases of the output, in the order of `phase_patches`: each [B, H, W, O]."""
    return [matmul(p, w) for p, w in zip(phase_patches(x), phase_taps(kernel), strict=True)]


def _check(x: jax.Array, kernel: jax.Array) -> None:
    """Raises ValueError unless the kernel is square and x has its channels."""
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
        return _conv_transpose_matmul(x, kernel)
    return conv_transpose_by_gradient(x, kernel)


def conv_transpose_pieces(x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
    """Computes `conv_transpose` in the pieces in which the platform produces it.

    On the CPU these are the four phases [B, H, W, O] of the output pixels, which are costly to
    interleave when O is 768; elsewhere the one whole output. `split_like_pieces` cuts an image the
    same way.
    """
    _check(x, kernel)
    if use_matmul():
        return _phases(x, kernel)
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


def conv_transpose_by_gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `conv_transpose` in the forms that have kernels of their own in cuDNN.

    A convolution of x with zeros in between is the same map, but XLA hands that to cuDNN as it is
    written, with four times the products. A strided convolution and its gradients by its input and
    by its kernel are recognized.

    Args:
        x: float [B, H, W, I].
        kernel: float [4, 4, I, O], rounded to x's dtype.

    Returns:
        [B, 2H, 2W, O] in x's dtype.
    """
    return _conv_transpose(x, kernel)


def _upsampled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes the input's gradient of `_downsampled`: [B, H, W, I] to [B, 2H, 2W, O]."""
    # Two mirrorings in a row would be simplified away, and with them the form XLA recognizes.
    mirrored = _mirrored(lax.optimization_barrier(_mirrored(kernel).astype(x.dtype)))
    return lax.conv_general_dilated(
        x,
        mirrored,
        (1, 1),
        ((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _downsampled(kernel: jax.Array, y: jax.Array) -> jax.Array:
    """Computes the convolution of stride 2, y [B, 2H, 2W, O] to [B, H, W, I]."""
    return lax.conv_general_dilated(
        y,
        _mirrored(kernel).astype(y.dtype),
        (2, 2),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
    )


def _kernel_gradient(x: jax.Array, y: jax.Array) -> jax.Array:
    """Computes the kernel's gradient of `_downsampled`."""
    return _mirrored(
        lax.conv_general_dilated(
            y,
            x,
            (1, 1),
            ((1, 1), (1, 1)),
            rhs_dilation=(2, 2),
            dimension_numbers=("CHWN", "IHWO", "HWCN"),
        )
    )


def _mirrored(kernel: jax.Array) -> jax.Array:
    """Reverses height and width."""
    return lax.rev(kernel, (0, 1))


_conv_transpose = Bilinear(_upsampled, _downsampled, _kernel_gradient)
