"""What kernels of our own share, which are written in Pallas for Triton, and where they run.

`uses_kernels` is the one place that chooses. The compiler can't divide a kernel over a mesh.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType

_OLDEST = 8.0  # compute capability that Triton compiles for
_BLOCK = 4096  # numbers of a block of threads, which hold them in registers
_PARTS = 64


def uses_kernels(*arrays: jax.Array) -> bool:
    """Tells whether this platform has the kernels, and the arrays are on one device."""
    return has_kernels() and on_one_device(*arrays)


def on_one_device(*arrays: jax.Array) -> bool:
    """Tells whether no array's mesh has several devices.

    Nor is it one whose axes are explicit or manual, which Pallas refuses.
    """
    meshes = [jax.typeof(x).sharding.mesh for x in arrays]
    return all(m.size <= 1 and {*m.axis_types} <= {AxisType.Auto} for m in meshes)


def has_kernels() -> bool:
    """Tells whether this platform has the kernels: NVIDIA GPUs since Ampere."""
    if jax.default_backend() != "gpu":
        return False
    try:
        return float(jax.devices()[0].compute_capability) >= _OLDEST
    except (AttributeError, ValueError):  # not NVIDIA's
        return False


def pallas(*, num_warps: int) -> tuple[Any, Any]:
    """Imports Pallas, which not every platform's JAX has: it, and the parameters for Triton."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    return pl, triton.CompilerParams(num_warps=num_warps)


def rows_of_block(num_rows: int, num_levels: int) -> int:
    """Returns how many rows a block takes; 0: rows of this number and size fill no blocks."""
    if num_rows < 1 or not 1 <= num_levels <= 2 * _BLOCK or num_levels & (num_levels - 1):
        return 0
    rows = max(1, _BLOCK // num_levels)
    return rows if num_rows % rows == 0 else 0


def on_cuda(fused: Callable[..., Any], plain: Callable[..., Any], interpret: bool) -> Any:
    """Returns a function that is `fused` where it is compiled for CUDA, else `plain`.

    With `interpret` it is `fused` everywhere.
    """
    if interpret:
        return fused
    return lambda *arrays: lax.platform_dependent(*arrays, cuda=fused, default=plain)


def sum_of_parts(parts: jax.Array) -> jax.Array:
    """Adds the sums of blocks, [N, ...], in two steps: XLA would add all N with few threads."""
    number = math.gcd(len(parts), _PARTS)
    groups = parts.reshape(number, -1, *parts.shape[1:]).sum(1)
    return lax.optimization_barrier(groups).sum(0)
