"""Small models with parameters of no training, of every kind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dvae import boltzmann, trained
from dvae.models import code_prior, dvaepp, joint, mlp, multiscale, vq_conv

VQ = vq_conv.VQConvConfig(
    codebook_size=4, num_latents=2, code_dim=2, features=2, num_residual_blocks=1
)
FUNCTIONS = {
    "cifar_vq": trained.cifar_vq.Functions(VQ, (8, 4, 3)),
    "nearest": trained.cifar_vq.Functions(VQ, (8, 4, 3), "nearest"),
    "code_prior": trained.code_prior.Functions(
        trained.cifar_vq.Functions(VQ, (8, 4, 3)),
        code_prior.CodePriorConfig((2, 1), 2, 4, features=2, num_layers=1),
    ),
    "directed": trained.binary_vae.Functions(
        mlp.BinaryVAEConfig(group_sizes=(2, 2), hidden=(3,), num_pixels=6, batch_norm=True),
        (3, 2, 1),
    ),
    "machine": trained.binary_vae.Functions(
        mlp.BinaryVAEConfig(group_sizes=(2, 2), num_pixels=6, directed=False), (3, 2, 1), 5, True
    ),
    "graph": trained.binary_vae.Functions(
        mlp.BinaryVAEConfig(group_sizes=(5,), num_pixels=6, directed=False),
        (3, 2, 1),
        5,
        topology=trained.Topology.of("grid", boltzmann.graphs.grid(5, periodic=True)),
    ),
    "joint_vae": trained.joint_vae.Functions(
        joint.JointConfig(image_size=8, num_continuous=2, discrete=(3, 2), features=2)
    ),
    "dvaepp": trained.dvaepp.Functions(
        dvaepp.DVAEPPConfig(
            multiscale.MultiscaleConfig(image_size=8, features=1, num_blocks=0),
            global_sizes=(2, 2),
            local_groups=2,
            local_size=1,
            local_parameters=1,
            hidden=(3,),
        ),
        "rbm",
        "bernoulli",
        4,
    ),
}


@functools.cache
def make(name):
    """A model with random parameters; chains are bits."""
    functions = FUNCTIONS[name]
    rng = np.random.default_rng(0)

    def draw(path, like):
        values = 0.3 * rng.normal(size=like.shape)
        key = jax.tree_util.keystr(path)
        if "chains" in key or "var" in key:
            values = values > 0 if "chains" in key else 1 + values**2
        return jnp.asarray(values, like.dtype)

    params = jax.tree_util.tree_map_with_path(draw, functions.abstract_params())
    return trained.Model(functions, params, {"dataset": "noise"})


def images_of(name, count=3):
    """Images as the model takes them."""
    functions = FUNCTIONS[name]
    levels = np.random.default_rng(1).integers(0, 256, (count, *functions.image_shape), np.uint8)
    return levels if functions.pixels == "levels" else (levels > 127).astype(np.uint8)
