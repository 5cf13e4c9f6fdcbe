"""Trained models: a folder with arrays and settings, and the pure functions that it makes.

    model = dvae.load("runs/x")                      # a run's folder, or its model/
    codes = model.encode(key, images)                # key=None: the posterior's mode
    images = model.decode(codes)
    new = model.sample(key, 16)
    bound = model.elbo(key, images)                  # [N] nats
    log_p = model.log_likelihood(key, images, num_samples=100)
    model.params, model.codebook, model.info         # trees of arrays; what model.json says
    model.apply(params, "elbo", key, images)         # the same at other parameters

Each kind of model has a module with its `Functions`, pure ones that take the parameters first, and
its latent variables: `cifar_vq`, `binary_vae`, `joint_vae`, `dvaepp`. `code_prior` has those of a
`cifar_vq` model once a prior over its codes was learned. Loading reads JSON and safetensors and
executes nothing.
"""

from dvae import _extras

with _extras.needed(__name__, "train"):
    from dvae.trained import binary_vae, cifar_vq, code_prior, dvaepp, joint_vae
    from dvae.trained._arrays import identity
    from dvae.trained._files import (
        MODEL_FOLDER,
        RECORD_FILE,
        Card,
        ModelError,
        find,
        load,
        save,
        save_prior,
        seed_folder,
    )
    from dvae.trained._machine import MACHINE_FILES, Topology
    from dvae.trained._model import Functions, Model
    from dvae.trained._prior import prior_record

__all__ = [
    "MACHINE_FILES",
    "MODEL_FOLDER",
    "RECORD_FILE",
    "Card",
    "Functions",
    "Model",
    "ModelError",
    "Topology",
    "binary_vae",
    "cifar_vq",
    "code_prior",
    "dvaepp",
    "find",
    "identity",
    "joint_vae",
    "load",
    "prior_record",
    "save",
    "save_prior",
    "seed_folder",
]
