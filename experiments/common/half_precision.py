"""Whether this machine multiplies bfloat16 faster than float32, and a word where it does not."""

import functools
import platform
import re
import sys
from pathlib import Path

import jax

from dvae.train import distributed

_CPUINFO = Path("/proc/cpuinfo")
# What the kernel calls units that are faster with it, by machine.
_UNITS = {"x86_64": "amx_bf16", "aarch64": "bf16"}
_INSTRUCTIONS = "avx512_bf16"  # of x86: their speed is that of the compiler's kernels for them


def is_bfloat16_faster(machine: str, cpuinfo: str) -> bool | None:
    """Tells whether a CPU multiplies bfloat16 numbers faster than float32 ones.

    With AVX-512 BF16 alone an Intel Xeon was measured at 0.5 to 0.8 times the speed of float32.

    Args:
      machine: as `platform.machine` names it.
      cpuinfo: the text of Linux's /proc/cpuinfo.

    Returns:
      None where that is not known: other machines, other systems, AVX-512 BF16 of other makers.
    """
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    if machine not in _UNITS or flags is None:
        return None
    found = set(flags[1].split())
    if _UNITS[machine] in found:
        return True
    return None if _INSTRUCTIONS in found and "GenuineIntel" not in cpuinfo else False


@functools.cache
def advise(flag: str, dtype: str) -> None:
    """Warns on stderr, once a flag, that bfloat16 will cost time on this CPU; else nothing.

    Where there are no units for it every product converts its operands.

    Args:
      flag: that asked for the dtype, such as --dtype.
      dtype: its value.
    """
    if dtype != "bfloat16" or jax.default_backend() != "cpu" or not distributed.is_main():
        return
    cpuinfo = _CPUINFO.read_text(encoding="utf-8") if _CPUINFO.exists() else ""
    if is_bfloat16_faster(platform.machine(), cpuinfo) is False:
        print(
            f"{flag}={dtype}: this CPU has no fast units for bfloat16 (AMX, on ARM bf16), so that "
            f"it is slower than float32; {flag}=float32 is faster here",
            file=sys.stderr,
        )
