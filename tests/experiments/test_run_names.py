"""Default workdirs: as many names as configurations."""

import dataclasses
import json

import pytest
from hypothesis import HealthCheck, given, settings
from programs import TRAINING
from test_fuzzed_configs import overrides

from experiments.common import flags


def identity(config) -> str:
    """Everything but what may change when a run is resumed."""
    free = flags.free_fields(config)
    told = {k: v for k, v in dataclasses.asdict(config).items() if k not in free}
    return json.dumps(told, sort_keys=True)


def names_of(configs) -> dict[str, str]:
    """Identity -> name; fails where two share a name, or a name is long or unsafe."""
    found: dict[str, str] = {}
    for config in configs:
        name = config.default_workdir()
        assert found.setdefault(identity(config), name) == name
        assert name.startswith("runs/")
        assert name.count("/") == 1
        assert len(name) < 120
        assert name.isascii()
        assert not set(name) & set(" \\'\"\n:*?<>|$&;")
    assert len(set(found.values())) == len(found)
    return found


def one_field_changed(config_class, preset):
    """The configurations that differ from a preset in one field, as far as they are valid."""
    base = config_class(**preset)
    yield base
    for field in dataclasses.fields(config_class):
        now = getattr(base, field.name)
        others = [c for c in field.metadata["choices"] if c not in ("", now)] or {
            bool: lambda now: [not now],
            int: lambda now: [now + 1, 2 * now + 2],
            float: lambda now: [now / 2, now + 1.0],
            str: lambda _: ["10,3", "a/b"],
        }[type(field.default)](now)
        for value in others:
            try:
                yield config_class(**{**preset, field.name: value})
            except (ValueError, TypeError):
                continue


@pytest.mark.parametrize("experiment", TRAINING)
def test_presets_and_every_change_of_one_field_have_names_of_their_own(experiment) -> None:
    config_class, presets = TRAINING[experiment]
    small = {name: presets[name] for name in ("demo", "smoke")}
    configs = [config_class(**preset) for preset in presets.values()]
    for preset in ({}, *small.values()):
        configs += one_field_changed(config_class, preset)
    found = names_of(configs)
    fields = len(dataclasses.fields(config_class)) - len(flags.free_fields(config_class))
    assert len(found) > 2 * fields


@pytest.mark.many_cases
@pytest.mark.parametrize("experiment", TRAINING)
def test_made_up_settings_have_names_of_their_own(experiment) -> None:
    config_class, _ = TRAINING[experiment]
    found: dict[str, str] = {}

    @settings(
        max_examples=300,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(overrides(config_class))
    def run(changes):
        try:
            config = config_class(**changes)
        except ValueError:
            return
        found.update(names_of([config]))
        assert len(set(found.values())) == len(found)

    run()
    assert len(found) > 20


def test_names_are_readable_and_short_where_little_differs() -> None:
    vq, _ = TRAINING["cifar_vq"]
    binary, presets = TRAINING["binary_vae"]
    joint, _ = TRAINING["joint_vae"]
    assert vq().default_workdir() == "runs/cifar_vq-cifar10-gs_soft-C512-seed0"
    assert vq(crop=16, num_steps=500, workdir="x").default_workdir() == (
        "runs/cifar_vq-cifar10-gs_soft-C512-num_steps=500-crop=16-seed0"
    )
    assert vq(seed=3, num_seeds=5).default_workdir() == (
        "runs/cifar_vq-cifar10-gs_soft-C512-seeds3-7"
    )
    assert binary(prior="rbm", method="dvaes", sampler="tempering").default_workdir() == (
        "runs/binary_vae-mnist_static-1nonlinear-dvaes-exponential-iw5-sampler=tempering-seed0"
    )
    demo, smoke = (binary(**presets[name]).default_workdir() for name in ("demo", "smoke"))
    assert demo != smoke
    assert demo.startswith("runs/binary_vae-digits-1nonlinear-exponential-joint-")
    assert "/" not in joint(discrete="10").default_workdir().removeprefix("runs/")


def test_a_new_field_with_its_default_changes_no_name() -> None:
    vq, presets = TRAINING["cifar_vq"]
    extended = dataclasses.make_dataclass(
        "Extended", [("rotation", int, flags.option(0, "New."))], bases=(vq,), frozen=True
    )
    for preset in ({}, *presets.values()):
        assert extended(**preset).default_workdir() == vq(**preset).default_workdir()
    assert extended(rotation=1).default_workdir() != vq().default_workdir()
