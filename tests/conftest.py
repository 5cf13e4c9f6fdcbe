"""Test configuration: eight virtual CPU devices, strict shapes; thorough runs have strict keys."""

import gc
import os
from collections import Counter
from importlib.metadata import version

# Must be set before JAX starts its backend. Most of the suite's time is compilation of small
# programs: an unoptimized backend halves it, the older emitter of fusions halves it again. Later
# releases don't have that emitter, and XLA ends a process for a flag that it doesn't know. On a
# busy machine devices may come more than 40 seconds late to a collective, where XLA would end.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        (
            "--xla_cpu_use_fusion_emitters=false"
            " --xla_cpu_collective_call_terminate_timeout_seconds=600"
        )
        * version("jaxlib").startswith("0.10."),
    ]
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What programs do for themselves: too few threads for eight devices wait without an end.
os.environ.setdefault("PJRT_NPROC", "32")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="also run what is marked thorough")
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config: pytest.Config) -> None:
    # The check of keys takes a fourteenth of the time.
    jax.config.update("jax_debug_key_reuse", config.getoption("--thorough"))
    # One program is compiled by many tests, by all workers, and again in the next run.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and hasattr(config, "cache"):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir("xla"))
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_sessionfinish() -> None:
    # Pytest collects garbage five times more. Through the gigabytes of a whole run that takes
    # longer than xdist waits: it interrupts its workers, whose traceback looks like a failure.
    gc.freeze()


@pytest.hookimpl(trylast=True)  # cases of a family are counted among all, as collected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--thorough"):
        _skip_thorough(items)
    run_slow = config.getoption("--slow")
    has_data = bool(os.environ.get("TFDS_DATA_DIR"))
    for item in items:
        if "slow" in item.keywords and not run_slow:
            item.add_marker(pytest.mark.skip(reason="slow: pass --slow"))
        if "real_data" in item.keywords and not has_data:
            item.add_marker(pytest.mark.skip(reason="set TFDS_DATA_DIR to prepared data sets"))


def _skip_thorough(items: list[pytest.Item]) -> None:
    """Leaves of each family with many cases the first, or every n-th, and no other long test."""
    skip = pytest.mark.skip(reason="thorough: pass --thorough")
    counts: Counter[str] = Counter()
    for item in items:
        family = item.nodeid.split("[")[0]
        many = item.get_closest_marker("many_cases")
        every = many.kwargs.get("every") if many else None
        left_out = counts[family] % every if every else counts[family]
        if item.get_closest_marker("thorough") or (many and left_out):
            item.add_marker(skip)
        counts[family] += 1


@pytest.fixture(scope="session")
def data_dir() -> str:
    return os.environ["TFDS_DATA_DIR"]
