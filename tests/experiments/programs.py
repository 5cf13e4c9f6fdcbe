"""The programs that the tests of all programs go through."""

from experiments.binary_vae import config as binary_config
from experiments.binary_vae import presets as binary_presets
from experiments.cifar_vq import config as vq_config
from experiments.cifar_vq import presets as vq_presets
from experiments.dvaepp import config as dvaepp_config
from experiments.dvaepp import presets as dvaepp_presets
from experiments.gradient_variance import config as gradient_variance_config
from experiments.joint_vae import config as joint_config

# The configuration and the presets of each program that leaves a run.
TRAINING = {
    "cifar_vq": (vq_config.Config, vq_presets.PRESETS),
    "binary_vae": (binary_config.Config, binary_presets.PRESETS),
    "joint_vae": (joint_config.Config, joint_config.PRESETS),
    "dvaepp": (dvaepp_config.Config, dvaepp_presets.PRESETS),
}
EXPERIMENTS = {**TRAINING, "gradient_variance": (gradient_variance_config.Config, {})}
CONFIGS = {name: config_class for name, (config_class, _) in TRAINING.items()}
