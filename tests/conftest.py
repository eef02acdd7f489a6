"""Settings of every test run: devices, promotion rules, flags, where the real images are."""

import os
import pathlib

# Two simulated devices in every run, so that nothing quietly assumes one. Most of the time goes
# into compiling programs that run once or twice, and half of that into LLVM's optimisations.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from absl import flags

flags.FLAGS.mark_as_parsed()  # Grain reads absl flags
jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real images (camvid/, street_photos/, carla_mini/)."""
    folder = os.environ.get("CLOUDS_DATA", "")
    if not folder:
        pytest.skip("CLOUDS_DATA is not set: no real images here")
    path = pathlib.Path(folder)
    if not (path / "camvid").is_dir():
        pytest.fail(f"CLOUDS_DATA={folder} has no folder 'camvid'")
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """With CLOUDS_NO_SKIP=1 a skipped test fails, so that CI cannot pass on missing parts."""
    report = yield
    if os.environ.get("CLOUDS_NO_SKIP") == "1" and report.skipped and "gpu" not in item.keywords:
        report.outcome = "failed"
        report.longrepr = f"CLOUDS_NO_SKIP=1, but {item.nodeid} was skipped: {report.longrepr}"
    return report
