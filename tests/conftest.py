"""Settings of every test run: devices, promotion rules, flags, where the real images are."""

import fcntl
import os
import pathlib
import shutil
import signal
from collections.abc import Callable

# Two simulated devices in every run, so that nothing quietly assumes one. Most of the time goes
# into compiling programs that run once or twice, so they are compiled fast rather than well: LLVM
# does not optimise, and the older emitters of fused loops produce less code for it.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0 "
    "--xla_cpu_use_fusion_emitters=false",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What one worker, or a program that a test starts, has compiled the others read from disk.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "xla")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest
from absl import flags

# A shell lets what runs in its background ignore Ctrl-C, which the tests send to programs.
signal.signal(signal.SIGINT, signal.default_int_handler)
flags.FLAGS.mark_as_parsed()  # Grain reads absl flags
jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = pathlib.Path(__file__).parent.parent

# Begun first, the longest in front: each goes to one worker, and the short files fill the gaps.
LONG = (
    "e2e/test_train.py", "e2e/test_joint.py", "e2e/test_devices.py", "unit/test_readmes.py",
    "e2e/test_experiments.py", "e2e/test_rounds.py", "e2e/test_benchmark.py",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--slow` adds the long proofs."""
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the slow tests unless asked for, and puts the long files in front."""
    if not config.getoption("--slow"):
        slow = [item for item in items if "slow" in item.keywords]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if "slow" not in item.keywords]
    rank = {ROOT / "tests" / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """With CLOUDS_NO_SKIP=1 a skipped test fails, so that CI cannot pass on missing parts."""
    report = yield
    if os.environ.get("CLOUDS_NO_SKIP") == "1" and report.skipped and "gpu" not in item.keywords:
        report.outcome = "failed"
        report.longrepr = f"CLOUDS_NO_SKIP=1, but {item.nodeid} was skipped: {report.longrepr}"
    return report


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


def _many_devices(number: int) -> dict[str, str]:
    """The environment of a process with so many simulated devices that imports from here."""
    count = f"--xla_force_host_platform_device_count={number}"
    return {
        **os.environ,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {count}",  # the last one counts
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "unit"))),
    }


@pytest.fixture(scope="session")
def eight_devices() -> dict[str, str]:
    """The environment of a process with eight simulated devices."""
    return _many_devices(8)


@pytest.fixture(scope="session")
def sixteen_devices() -> dict[str, str]:
    """The environment of a process with sixteen simulated devices."""
    return _many_devices(16)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory):
    """`shared_folder(name, fill)`: a folder that `fill(folder)` fills once for all workers."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # a worker's folder is inside the one of the run

    def folder(name: str, fill: Callable[[pathlib.Path], None]) -> pathlib.Path:
        path, filled = root / f"shared_{name}", root / f"shared_{name}.filled"
        with open(root / f"shared_{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not filled.exists():
                shutil.rmtree(path, ignore_errors=True)  # left by a `fill` that failed
                path.mkdir()
                fill(path)
                filled.touch()
        return path

    return folder
