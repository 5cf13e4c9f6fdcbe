"""bfloat16 is named where the CPU is slower with it, once, and nowhere else."""

import jax
import pytest

from experiments.common import half_precision

X86 = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Some CPU\n"
    "flags\t\t: fpu sse avx2 {}\n\nprocessor\t: 1\n"
)
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "expected"),
    [
        ("x86_64", X86.format(""), False),
        ("x86_64", X86.format("avx512f avx512_bf16_like"), False),
        ("x86_64", X86.format("avx512f avx512_bf16"), False),
        ("x86_64", X86.format("avx512_bf16 amx_bf16"), True),
        ("x86_64", X86.format("avx512_bf16").replace("GenuineIntel", "AuthenticAMD"), None),
        ("x86_64", X86.format("amx_bf16 amx_tile"), True),
        ("aarch64", ARM.format("i8mm"), False),
        ("aarch64", ARM.format("i8mm bf16"), True),
        ("x86_64", "", None),
        ("x86_64", "processor\t: 0\n", None),
        ("ppc64le", X86.format("bf16"), None),
    ],
)
def test_units_by_flags(machine, cpuinfo, expected) -> None:
    assert half_precision.is_bfloat16_faster(machine, cpuinfo) is expected


@pytest.fixture(name="advise")
def make_advise(monkeypatch, tmp_path):
    """`advise` on a CPU with the given flags, nothing said yet."""

    def on(flags, backend="cpu"):
        file = tmp_path / "cpuinfo"
        if flags is not None:
            file.write_text(X86.format(flags))
        monkeypatch.setattr(half_precision, "_CPUINFO", file)
        monkeypatch.setattr(half_precision.platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        half_precision.advise.cache_clear()
        return half_precision.advise

    yield on
    half_precision.advise.cache_clear()


def test_said_once_in_one_line(advise, capsys) -> None:
    advise = advise("avx2")
    for _ in range(3):
        advise("--dtype", "bfloat16")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--dtype=bfloat16: this CPU has no fast units for bfloat16")
    assert "--dtype=float32" in line
    advise("--eval_dtype", "bfloat16")
    assert capsys.readouterr().err.startswith("--eval_dtype=bfloat16")


@pytest.mark.parametrize(
    ("flags", "backend", "dtype"),
    [
        ("amx_bf16", "cpu", "bfloat16"),
        ("avx2", "gpu", "bfloat16"),
        ("avx2", "cpu", "float32"),
        (None, "cpu", "bfloat16"),
    ],
)
def test_nothing_to_say(advise, capsys, flags, backend, dtype) -> None:
    advise(flags, backend)("--dtype", dtype)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("program", ["cifar_vq", "binary_vae"])
def test_the_programs_ask(monkeypatch, program) -> None:
    import importlib

    from dvae import data
    from dvae.train import sharding

    module = importlib.import_module(f"experiments.{program}.__main__")
    asked = []
    monkeypatch.setattr(half_precision, "advise", lambda *arguments: asked.append(arguments))
    flag = {"cifar_vq": "dtype", "binary_vae": "eval_dtype"}[program]
    settings = {**module.PRESETS["smoke"], flag: "bfloat16"}
    images = data.load({"cifar_vq": "patches", "binary_vae": "digits"}[program])
    module.make_task(module.Config(**settings), images, sharding.make_mesh(1))
    assert asked == [(f"--{flag}", "bfloat16")]
