"""The programs that the tests of all programs go through."""

from experiments.gradient_variance import config as gradient_variance_config
from experiments.programs import PROGRAMS

# The configuration and the presets of each program that leaves a run.
TRAINING = {
    name: (program.config_class, dict(program.presets)) for name, program in PROGRAMS.items()
}
EXPERIMENTS = {**TRAINING, "gradient_variance": (gradient_variance_config.Config, {})}
CONFIGS = {name: config_class for name, (config_class, _) in TRAINING.items()}
