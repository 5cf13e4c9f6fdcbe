"""A residual block of DVAE++ with its gradients, against the same block in PyTorch.

    python benchmarks/residual_block.py

Sizes are those of `dvaepp --preset=table3_cpu_rbm_normal`: few channels at 28x28, more below. Both
start from the same numbers; value and gradients are compared first. Ours runs twenty blocks a call
in a loop, one image batch each, as train steps run it; PyTorch is called twenty times.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from _timing import Comparison, compare, show

from dvae.models.se_resnet import SEResidualBlock

SIZES = ((28, 8), (14, 16), (7, 32))  # side and channels
BATCH, CALLS = 32, 20


def random_params(module: nn.Module, x: jax.Array) -> Any:
    """Returns parameters of which none is zero: the last kernel starts as zeros."""
    params = jax.jit(module.init)(jax.random.key(0), x)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


class Peer:
    """The block by our parameters; images are [B, H, W, C], which PyTorch calls channels last."""

    def __init__(self, params: Any) -> None:
        tensor = lambda a: torch.from_numpy(np.array(a))
        kernel = lambda p: tensor(p["kernel"]).permute(3, 2, 0, 1)
        named = {
            **{f"norm{i}": tensor(params[f"LayerNorm_{i}"]["scale"]) for i in range(2)},
            **{f"shift{i}": tensor(params[f"LayerNorm_{i}"]["bias"]) for i in range(2)},
            **{f"kernel{i}": kernel(params[f"Conv_{i}"]) for i in range(2)},
            **{f"bias{i}": tensor(params[f"Conv_{i}"]["bias"]) for i in range(2)},
            **{f"dense{i}": tensor(params[f"Dense_{i}"]["kernel"]).T for i in range(2)},
            **{f"offset{i}": tensor(params[f"Dense_{i}"]["bias"]) for i in range(2)},
        }
        last = lambda a: a.contiguous(memory_format=torch.channels_last) if a.ndim == 4 else a
        self.p = {k: last(a).clone().requires_grad_() for k, a in named.items()}

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Half of the sum of the block's squared outputs."""
        p, y = self.p, x
        for i in range(2):
            y = F.elu(F.layer_norm(y, y.shape[-1:], p[f"norm{i}"], p[f"shift{i}"], 1e-6))
            y = F.conv2d(y.permute(0, 3, 1, 2), p[f"kernel{i}"], p[f"bias{i}"], padding=1)
            y = y.permute(0, 2, 3, 1)
        gates = F.relu(F.linear(y.mean((1, 2)), p["dense0"], p["offset0"]))
        gates = torch.sigmoid(F.linear(gates, p["dense1"], p["offset1"]))
        return (x + y * gates[:, None, None]).square().sum() / 2

    def runner(self, images: torch.Tensor, *, compiled: bool) -> Callable[[], Any]:
        """Makes a call that computes loss and gradients of every batch of `images`."""
        loss = torch.compile(self.loss) if compiled else self.loss

        def run() -> list[torch.Tensor]:
            for x in images:
                for tensor in self.p.values():
                    tensor.grad = None
                # The block before wants the gradient of its output, as in a network.
                given = x.detach().requires_grad_()
                loss(given).backward()
            return [given.grad, *(tensor.grad for tensor in self.p.values())]

        return run


def ours(module: nn.Module, params: Any) -> Callable[[jax.Array], Any]:
    """Returns the gradients of the last batch, after a loop over all of `images`."""
    loss = lambda params, x: jnp.square(module.apply({"params": params}, x)).sum() / 2

    def body(before: Any, x: jax.Array) -> tuple[Any, None]:
        # The sum of before keeps each step: XLA would drop gradients that nobody reads.
        gradients = jax.grad(loss, (0, 1))(params, x + 0 * before[1])
        return gradients, None

    @jax.jit
    def run(images: jax.Array) -> Any:
        return jax.lax.scan(body, (params, jnp.zeros_like(images[0])), images)[0]

    return run


def check(found: list[torch.Tensor], expected: Any) -> None:
    """Compares the gradients by the image and by the kernels with ours."""
    kernels = [expected[0][f"Conv_{i}"]["kernel"].transpose(3, 2, 0, 1) for i in range(2)]
    for peer, own in zip((found[0], found[5], found[6]), (expected[1], *kernels), strict=True):
        np.testing.assert_allclose(peer, own, atol=1e-4 * np.abs(own).max())


def comparisons() -> list[Comparison]:
    """Times every size."""
    found = []
    for side, channels in SIZES:
        shape = (CALLS, BATCH, side, side, channels)
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        module = SEResidualBlock(channels)
        params = random_params(module, images[0])
        run, peer, given = ours(module, params), Peer(params), jnp.asarray(images)
        eager = peer.runner(torch.from_numpy(images), compiled=False)
        check(eager(), jax.device_get(run(given)))
        forms = {
            "SEResidualBlock": lambda run=run, given=given: run(given),
            "PyTorch, eager": eager,
            "torch.compile": peer.runner(torch.from_numpy(images), compiled=True),
        }
        title = f"{CALLS} residual blocks with gradients, {BATCH}x{side}x{side}x{channels}"
        found.append(compare(title, forms))
    return found


if __name__ == "__main__":
    show(comparisons())
