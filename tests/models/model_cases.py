"""Every model as one function of parameters and a batch: all of its networks, with their losses."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae.models import dvaepp, joint, mlp, vq_conv
from dvae.models.multiscale import MultiscaleConfig


class Case(NamedTuple):
    """A model, small."""

    init: Callable[..., Any]  # (key, batch) -> parameters
    forward: Callable[..., dict[str, jax.Array]]  # (parameters, batch) -> arrays [B, ...]
    loss: Callable[..., jax.Array]  # (parameters, batch) -> [B] nats, differentiable
    batch: Callable[[int], np.ndarray]  # number of images -> images


def levels(*shape: int) -> Callable[[int], np.ndarray]:
    rng = np.random.default_rng(0)
    return lambda n: rng.integers(0, 256, (n, *shape), dtype=np.uint8)


def vq_case(fused: bool) -> Case:
    config = vq_conv.VQConvConfig(5, 2, 3, features=4, num_residual_blocks=1)
    module = vq_conv.VQConv(config)

    def init(key, images):
        codebook = jax.random.normal(key, (2, 5, 3), jnp.float32)
        return module.init(key, images, codebook)["params"], codebook

    def forward(params, images):
        network, codebook = params
        run = lambda method, *args: module.apply({"params": network}, *args, method=method)
        vectors = run("encode", images)
        codes = vq_conv.nearest_codes(vectors, codebook)
        logits = run("posterior_logits", vectors, codebook)
        quantized = vq_conv.average(jax.nn.softmax(logits), codebook)
        return {
            "codes": codes,
            "logits": logits,
            "log_px": run("log_likelihood", vq_conv.lookup(codes, codebook), images),
            "mean": run("mean_image", quantized),
        }

    def loss(params, images):
        network, codebook = params
        run = lambda method, *args: module.apply({"params": network}, *args, method=method)
        logits = run("posterior_logits", run("encode", images), codebook)
        quantized = vq_conv.average(jax.nn.softmax(logits), codebook)
        if fused:
            return run("total_log_likelihood", quantized, images)[0][None]
        return run("log_likelihood", quantized, images)

    return Case(init, forward, loss, levels(8, 8, 3))


def mlp_case(**sizes: Any) -> Case:
    module = mlp.BinaryVAE(mlp.BinaryVAEConfig((3, 2), (4,), num_pixels=6, **sizes))

    def init(key, x):
        return module.init(key, x)["params"]

    def forward(params, x):
        run = lambda method, *args: module.apply({"params": params}, *args, method=method)
        first = jax.nn.sigmoid(run("posterior_logits", x, []))
        second = jax.nn.sigmoid(run("posterior_logits", x, [first]))
        logits = run("pixel_logits", [first, second])
        return {"second": second, "prior": run("prior_logits", [first]), "logits": logits}

    def loss(params, x):
        return sum((values**2).sum(-1) for values in forward(params, x).values())

    rng = np.random.default_rng(0)
    return Case(init, forward, loss, lambda n: rng.normal(size=(n, 6)).astype(np.float32))


def joint_case() -> Case:
    sizes = dict(image_size=8, channels=1, num_continuous=2, discrete=(3, 2))
    module = joint.JointVAE(joint.JointConfig(**sizes, features=2, hidden_units=4))

    def init(key, x):
        return module.init(key, x)["params"]

    def forward(params, x):
        run = lambda method, *args: module.apply({"params": params}, *args, method=method)
        q = run("encode", x)
        c = [jax.nn.softmax(logits) for logits in q.logits]
        kl = joint.divergences(q)
        log_px = joint.log_likelihood(x, run("pixel_logits", q.mean, c))
        codes = joint.likeliest(q)
        return {"log_px": log_px, "h": kl.continuous, "c": kl.discrete, "codes": codes}

    def loss(params, x):
        found = forward(params, x)
        return found["h"].sum(-1) + found["c"].sum(-1) - found["log_px"]

    rng = np.random.default_rng(0)
    return Case(init, forward, loss, lambda n: rng.random((n, 8, 8, 1), np.float32))


def dvaepp_case(num_mixtures: int) -> Case:
    decoder = MultiscaleConfig(
        image_size=8, channels=1, num_mixtures=num_mixtures, num_scales=2, features=1, num_blocks=0
    )
    sizes = dict(global_sizes=(3, 2), local_groups=2, local_size=2, hidden=(4,))
    module = dvaepp.DVAEPP(dvaepp.DVAEPPConfig(decoder, **sizes))

    def draw(key, q, p):
        h = (p if q is None else p + q)[..., :2]
        return h + jax.random.normal(key, h.shape, h.dtype), h.sum((1, 2, 3))

    def init(key, images):
        return module.init(key, images)["params"]

    def forward(params, images):
        run = lambda method, *args: module.apply({"params": params}, *args, method=method)
        features = run("encode", images)
        first = jax.nn.sigmoid(run("global_posterior", features, []))
        second = jax.nn.sigmoid(run("global_posterior", features, [first]))
        context = run("expand", [first, second])
        key = jax.random.key(0)
        context, divergences = run("local_groups", key, context, features, draw)
        drawn = run("generate", jax.random.key(1), context)
        log_px = run("log_likelihood", context, images)
        return {"context": context, "divergences": divergences.T, "log_px": log_px, "drawn": drawn}

    def loss(params, images):
        found = forward(params, images)
        return found["divergences"].sum(-1) - found["log_px"]

    bits = lambda n: (levels(8, 8, 1)(n) > 127).astype(np.uint8)
    return Case(init, forward, loss, levels(8, 8, 1) if num_mixtures else bits)


CASES = {
    "vq": vq_case(fused=False),
    "vq, fused": vq_case(fused=True),
    "mlp": mlp_case(),
    "mlp, rounded": mlp_case(product_dtype=jnp.bfloat16),
    "joint": joint_case(),
    "dvaepp": dvaepp_case(0),
    "dvaepp, levels": dvaepp_case(2),
}
