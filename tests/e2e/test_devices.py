"""Training on any number of devices, and in portions of a batch."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

pytestmark = pytest.mark.e2e

SAME_LOSS = 1e-5  # relative, between numbers of devices


@pytest.mark.slow
def test_any_number_of_devices_trains_alike(root, tmp_path, sixteen_devices):
    """The joint phase, whose step has all that one of the warm-up has, in its 6 + 2 images."""
    script = pathlib.Path(__file__).with_name("train_devices.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path],
        cwd=root,
        env=sixteen_devices,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    whole = found.pop("1 x 1")
    assert len(found) == 8
    for layout in found:
        for ours, one in zip(found[layout]["metrics"], whole["metrics"], strict=True):
            np.testing.assert_allclose(ours["loss"], one["loss"], rtol=SAME_LOSS)
            for key in one:
                if key.startswith("pseudo/"):
                    np.testing.assert_allclose(ours[key], one[key], atol=SAME_LOSS, err_msg=key)
        for what, norms in whole["norms"].items():
            ours = found[layout]["norms"][what]
            # absolute for biases before a norm: their gradient is rounding, which Adam blows up
            np.testing.assert_allclose(ours, norms, rtol=SAME_LOSS, atol=1e-4, err_msg=what)
        # The loss's totals, then gradients and metrics; the compiler may join some.
        devices = int(layout.split()[0])
        assert set(found[layout]["collectives"]) == ({"all-reduce"} if devices > 1 else set())
        assert len(found[layout]["collectives"]) <= 3
    assert not any(run["callbacks"] for run in (whole, *found.values()))
    assert whole["norms"]["teacher"]
    assert whole["metrics"][0]["pseudo/components"] > 0  # SAM was asked


def test_a_platform_that_is_not_there_is_told_in_one_line(root, tmp_path):
    command = [sys.executable, "-m", "clouds_jax.train", "--config=configs/warmup_gta.py:debug",
               f"--workdir={tmp_path / 'run'}"]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=root,
        env=os.environ | {"JAX_PLATFORMS": "rocm"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "train: JAX finds no device of JAX_PLATFORMS=rocm here" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 20
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_guard_of_the_steps_sees_a_transfer():
    """The control of the test above: an array of the host is not taken under the guard."""
    add = jax.jit(lambda x: x + 1)
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="isallowed host-to-device"):
        add(np.zeros(3, np.float32))
