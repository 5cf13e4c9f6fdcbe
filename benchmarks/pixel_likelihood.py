"""Value and gradient of the 256-way pixel likelihood with its transposed convolution.

    python benchmarks/pixel_likelihood.py

Ours (one pass over a few images at a time; and the form that composes with any objective) against
the plain way to write it: `lax.conv_transpose`, `log_softmax`, `take_along_axis`.
"""

import jax
import jax.numpy as jnp
from _timing import Comparison, compare, show

from dvae.models.pixel_head import PixelHead

BATCH, SIZE, FEATURES = 32, 8, 32  # crops of 16x16, the `small` preset


def comparisons() -> list[Comparison]:
    """Times the forms."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (BATCH, SIZE, SIZE, FEATURES))
    images = jax.random.randint(keys[1], (BATCH, 2 * SIZE, 2 * SIZE, 3), 0, 256)
    images = images.astype(jnp.uint8)
    head = PixelHead(FEATURES)
    params = head.init(keys[2], x, images, method="log_likelihood")["params"]

    def total(params: dict, x: jax.Array) -> jax.Array:
        return head.apply({"params": params}, x, images, method="total_log_likelihood")[0]

    def composable(params: dict, x: jax.Array) -> jax.Array:
        return head.apply({"params": params}, x, images, method="log_likelihood").sum()

    def plain(params: dict, x: jax.Array) -> jax.Array:
        y = jax.lax.conv_transpose(x, params["kernel"], (2, 2), "SAME")
        logits = y.reshape(*y.shape[:-1], 3, 256) + params["bias"][None, None, None]
        log_p = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(log_p, images[..., None].astype(jnp.int32), -1).sum()

    forms = {"one pass": total, "composable": composable, "plain JAX": plain}
    compiled = {
        label: jax.jit(jax.value_and_grad(function, argnums=(0, 1)))
        for label, function in forms.items()
    }
    calls = {label: (lambda f=f: f(params, x)) for label, f in compiled.items()}
    title = f"pixel likelihood, value and gradient, batch {BATCH} of 16x16x3, {FEATURES} maps"
    return [compare(title, calls)]


if __name__ == "__main__":
    show(comparisons())
