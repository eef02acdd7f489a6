"""The build as a program: killed and resumed, and on real images."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from clouds_jax.data.loader import __main__ as program
from clouds_jax.data.records import open_ref, read_summary

pytestmark = pytest.mark.e2e

PATIENCE = 60.0  # seconds until a build must have finished its first shard


def command(*arguments):
    return [sys.executable, "-m", "clouds_jax.data.build", *map(str, arguments)]


def files(root):
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def children(pid):
    """Processes whose parent is `pid`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry))
    return found


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_build_goes_on_and_ends_in_the_same_bytes(tmp_path, root, workers):
    options = ["fake", "--split", "train", "--count", "600", "--shards", "30", "--workers", workers]
    straight = subprocess.run(
        command(*options, "--output", tmp_path / "straight"), cwd=root, capture_output=True
    )
    assert straight.returncode == 0, straight.stderr

    output = tmp_path / "killed"
    process = subprocess.Popen(command(*options, "--output", output), cwd=root)
    hidden, limit = output / "fake/.train.building", time.monotonic() + PATIENCE
    while len(list(hidden.glob("*.array_record"))) < 2:
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.005)
    workers_of = children(process.pid) if workers > 1 else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((output / "fake").glob("train*"))  # nothing shows under its own name
    for _ in range(100):  # the workers notice and end
        if not any(os.path.exists(f"/proc/{pid}") for pid in workers_of):
            break
        time.sleep(0.05)
    else:
        pytest.fail("a worker of the killed build still runs")
    early = {path.name: path.stat().st_mtime_ns for path in hidden.glob("*.array_record")}
    assert 2 <= len(early) < 30

    resumed = subprocess.run(command(*options, "--output", output), cwd=root, capture_output=True)
    assert resumed.returncode == 0, resumed.stderr
    assert files(output) == files(tmp_path / "straight")
    built = output / "fake"
    again = [name for name, then in early.items() if (built / name).stat().st_mtime_ns != then]
    # The rest was moved, not written again. A worker may have been killed after it named its last
    # shard and before it noted so; that one is remade.
    assert len(again) <= workers
    assert not list((output / "fake").glob(".*"))


@pytest.mark.realdata
def test_camvid_is_built_from_its_real_files(tmp_path, root, real_data):
    for split, count in (("train", 367), ("val", 101), ("test", 233)):
        options = ["camvid", "--raw", real_data, "--output", tmp_path, "--split", split]
        run = subprocess.run(command(*options), cwd=root, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert "note:" not in run.stdout  # complete
        summary = read_summary(f"camvid/{split}", tmp_path)
        assert summary["examples"] == count == len(open_ref(f"camvid/{split}", tmp_path))
        assert summary["sizes"] == {"360x480": count}
        # Streets: road and buildings lead, and every class is there.
        shares = {name: entry["share"] for name, entry in summary["classes"].items()}
        assert min(shares["road"], shares["building"]) > 0.2
        assert min(shares.values()) > 0.001
    options = ["--shards", tmp_path, "--ref", "camvid/train", "--crop", 352, 480]
    program.main([*map(str, options), "--output", str(tmp_path / "panel.png")])
    assert (tmp_path / "panel.png").stat().st_size > 100_000


@pytest.mark.realdata
def test_carla_tags_and_plain_photos_are_built_from_real_files(tmp_path, root, real_data):
    for options, examples in (
        (["carla", "--split", "test", "--raw", real_data], 4),
        (["folder", "--split", "photos", "--raw", real_data / "street_photos"], 120),
    ):
        run = subprocess.run(
            command(*options, "--output", tmp_path), cwd=root, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        assert f"{examples} examples" in run.stdout
    frame = open_ref("carla/test", tmp_path)[0]
    assert frame.size == (1024, 2048)
    # The sky is above, the road below.
    assert np.median(frame.label[1000:, 800:1200]) == 0
    assert (frame.label[:200] == 10).any() and not (frame.label[700:] == 10).any()
    photo = open_ref("folder/photos", tmp_path)[0]
    assert photo.label is None and photo.image.shape == (540, 960, 3)
