"""Whether this machine multiplies bfloat16 faster than float32, and a word where it does not."""

import functools
import platform
import re
import sys
from pathlib import Path

import jax

from dvae.train import distributed

_CPUINFO = Path("/proc/cpuinfo")
# What the kernel calls the units, by machine.
_UNITS = {
    "x86_64": {"amx_bf16", "avx512_bf16"},
    "aarch64": {"bf16"},
}


def has_bfloat16_units(machine: str, cpuinfo: str) -> bool | None:
    """Tells whether a CPU multiplies bfloat16 numbers in hardware.

    Args:
      machine: as `platform.machine` names it.
      cpuinfo: the text of Linux's /proc/cpuinfo.

    Returns:
      None where that is not known: other machines, other systems.
    """
    units = _UNITS.get(machine)
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    if units is None or flags is None:
        return None
    return bool(units & set(flags[1].split()))


@functools.cache
def advise(flag: str, dtype: str) -> None:
    """Warns on stderr, once a flag, that bfloat16 will cost time on this CPU; else nothing.

    Without units for it every product converts its operands.

    Args:
      flag: that asked for the dtype, such as --dtype.
      dtype: its value.
    """
    if dtype != "bfloat16" or jax.default_backend() != "cpu" or not distributed.is_main():
        return
    cpuinfo = _CPUINFO.read_text(encoding="utf-8") if _CPUINFO.exists() else ""
    if has_bfloat16_units(platform.machine(), cpuinfo) is False:
        print(
            f"{flag}={dtype}: this CPU has no units for bfloat16 (AMX or AVX-512 BF16, on ARM "
            f"bf16), so that it is slower than float32; {flag}=float32 is faster here",
            file=sys.stderr,
        )
