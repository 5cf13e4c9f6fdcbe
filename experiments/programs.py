"""The training programs, for the tools that serve all of them."""

import importlib
from typing import Any

from experiments.binary_vae.program import PROGRAM as _BINARY_VAE
from experiments.cifar_vq.program import PROGRAM as _CIFAR_VQ
from experiments.common.program import Program
from experiments.dvaepp.program import PROGRAM as _DVAEPP
from experiments.joint_vae.program import PROGRAM as _JOINT_VAE

PROGRAMS: dict[str, Program] = {
    program.name: program for program in (_CIFAR_VQ, _BINARY_VAE, _JOINT_VAE, _DVAEPP)
}


def room(program: str, name: str) -> Any:
    """Returns a module of a program's package; all programs have rooms of the same names.

    Args:
      program: one of PROGRAMS.
      name: of the room, such as `task`.
    """
    return importlib.import_module(f"experiments.{program}.{name}")
