"""The models' networks: Flax modules, used as pure functions of their parameters.

*   `vq_conv`: images by categorical codes of learned codebooks (VQ, Gumbel-Softmax, VIMCO).
*   `mlp`: vectors of binary pixels by groups of bits; `binary` has its draws.
*   `joint`: images by continuous and discrete variables together (JointVAE).
*   `dvaepp`: images by global bits over groups of local variables (DVAE++); `multiscale` has its
    decoders, `dvaepp_latents` the draws of its variables.
*   `boltzmann`: a Boltzmann machine as the prior of bits; `labeled_machine` is one given a label.
*   `code_prior`: autoregressive priors of codes, by gated convolutions or a causal transformer.

What they are made of: `layers` (convolutions in the form that each platform runs fastest),
`se_resnet`, `pixel_head` (the likelihood of 256 levels) and `checks` (of arguments).

`init` makes the parameters, `apply` calls a method with them. A codebook model, given a key, uint8
images [B, H, W, 3] and a codebook float32 [2, 8, 16]:

    module = vq_conv.VQConv(vq_conv.VQConvConfig(codebook_size=8, num_latents=2, code_dim=16))
    params = module.init(key, images, codebook)
    vectors = module.apply(params, images, method="encode")
    codes = vq_conv.lookup(vq_conv.nearest_codes(vectors, codebook), codebook)
    log_px = module.apply(params, codes, images, method="log_likelihood")  # [B] nats

A module here is loaded, and Flax with it, when it is first used.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from dvae import _extras

_extras.require(__name__, "train", "flax")

if TYPE_CHECKING:
    from dvae.models import (
        binary,
        boltzmann,
        checks,
        code_prior,
        dvaepp,
        dvaepp_latents,
        joint,
        labeled_machine,
        layers,
        mlp,
        multiscale,
        pixel_head,
        se_resnet,
        vq_conv,
    )

__all__ = [
    "binary",
    "boltzmann",
    "checks",
    "code_prior",
    "dvaepp",
    "dvaepp_latents",
    "joint",
    "labeled_machine",
    "layers",
    "mlp",
    "multiscale",
    "pixel_head",
    "se_resnet",
    "vq_conv",
]


def __getattr__(name: str) -> ModuleType:
    """Loads a module on its first use."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__} has no attribute {name}")


def __dir__() -> list[str]:
    """Lists the modules, loaded or not."""
    return sorted({*globals(), *__all__})
