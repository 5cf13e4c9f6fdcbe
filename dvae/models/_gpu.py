"""Whether kernels of our own, written in Pallas for Triton, run on this platform.

`uses_kernels` is the one place that chooses. The compiler can't divide a kernel over a mesh.
"""

import jax
from jax.sharding import AxisType

_OLDEST = 8.0  # compute capability that Triton compiles for


def uses_kernels(*arrays: jax.Array) -> bool:
    """Tells whether this platform has the kernels, and no array's mesh has several devices.

    Nor is it one whose axes are explicit or manual, which Pallas refuses.
    """
    if not has_kernels():
        return False
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
