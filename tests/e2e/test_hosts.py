"""Two hosts: two real processes do what one does with as many devices."""

import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
from runs import metrics, saved
from several import run, started

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SAME = 1e-5
SIZES = ("--config.data.batch.fake=4", "--config.optimizer.lr=1e-3", "--config.log_every=1")
WARMUP = ("--config=configs/warmup_gta.py:debug", *SIZES)
FSDP = ("--config=configs/warmup_gta.py:debug", *SIZES, "--config.sharding=(('.*','fsdp'),)")
JOINT = ("--config=configs/joint_gta.py:debug", *SIZES, "--config.data.generated.batch.fake=4")
KINDS = {"warm-up": WARMUP, "fsdp": FSDP, "joint with SAM in the step": JOINT}
ONLINE = "--config.selftrain.sam.stored=False"


def train(workdir, *arguments, hosts=1, devices=1):
    program = ("-m", "clouds_jax.train", *arguments, f"--workdir={workdir}")
    return run(*program, hosts=hosts, devices=devices)


def check_alike(ours, theirs, step):
    """The runs in two folders have the same losses and scores, and at `step` the same weights."""
    for one, two in zip(metrics(ours), metrics(theirs), strict=True):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=SAME, atol=SAME, err_msg=name)
    one, two = saved(ours, step), saved(theirs, step)
    assert one.keys() == two.keys()
    for name in one:
        # absolute for biases before a norm: their gradient is rounding, which Adam blows up
        np.testing.assert_allclose(one[name], two[name], rtol=SAME, atol=1e-4, err_msg=name)


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """Folders of a run on one host and of the same on two, with as many devices."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = KINDS[request.param] + ((ONLINE,) if "SAM" in request.param else ())
    train(folder / "one", *arguments, devices=2)
    train(folder / "two", *arguments, hosts=2)
    return folder / "one", folder / "two"


def test_two_hosts_train_and_score_like_one(pair):
    one, two = pair
    check_alike(two, one, 4)
    assert any("eval/fake/train/miou" in line for line in metrics(two))
    names = [sorted(p.name for p in (folder / "eval" / "0000004").iterdir()) for folder in pair]
    assert names[0] == names[1]


def test_two_hosts_evaluate_predict_and_label_like_one(pair, tmp_path):
    run_folder = pair[0]
    shards = run_folder / "shards"
    for hosts in (1, 2):
        out = tmp_path / str(hosts)
        own = shutil.copytree(shards, out / "shards")
        for command in (
            ("clouds_jax.evaluate", "--datasets=fake/train", f"--output={out / 'scores'}",
             f"--shards={own}", "--panels=0"),
            ("clouds_jax.pseudo", "--shards", own, "--ref", "fake/train"),
        ):  # fmt: skip
            run("-m", command[0], f"--workdir={run_folder}", *command[1:], hosts=hosts,
                devices=2 // hosts)  # fmt: skip
    one, two = (
        json.loads((tmp_path / n / "scores" / "results.json").read_text()) for n in ("1", "2")
    )
    for results in (one, two):
        for dataset in results["datasets"].values():
            for name in ("seconds", "images_per_second"):
                dataset.pop(name, None)
    assert one["datasets"] == two["datasets"]
    labels = [sorted((tmp_path / n / "shards" / "fake.pseudo").glob("*.array_record"))
              for n in ("1", "2")]  # fmt: skip
    assert labels[0]
    for a, b in zip(*labels, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert (tmp_path / "2" / "shards" / "fake.pseudo" / "train.summary.json").exists()


LAYOUTS = [(1, 1), (1, 4), (2, 1), (2, 2)]  # hosts, devices of each
BASELINE = ("--config=configs/warmup_camvid_fpn.py:debug", *SIZES, "--config.evals={}",
            "--config.optimizer.schedule=constant")  # fmt: skip


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The whole run on one device; and by layout the run that ended at an odd step."""
    folder = tmp_path_factory.mktemp("grid")
    train(folder / "straight", *BASELINE, "--config.steps=6")
    for hosts, devices in LAYOUTS:
        workdir = folder / f"{hosts}x{devices}"
        train(workdir, *BASELINE, "--config.steps=3", hosts=hosts, devices=devices)
    return folder


@pytest.mark.parametrize("after", LAYOUTS, ids="to {0[0]}x{0[1]}".format)
@pytest.mark.parametrize("before", LAYOUTS, ids="{0[0]}x{0[1]}".format)
def test_a_run_goes_on_with_any_hosts_and_devices(stopped, tmp_path, before, after):
    workdir = shutil.copytree(stopped / f"{before[0]}x{before[1]}", tmp_path / "run")
    train(workdir, *BASELINE, "--config.steps=6", hosts=after[0], devices=after[1])
    check_alike(workdir, stopped / "straight", 6)


LONG = (*BASELINE, "--config.steps=100000", "--config.checkpoint_every=100000")


def wait_for_steps(workdir, count):
    until = time.monotonic() + 300
    while len([line for line in metrics(workdir) if "loss" in line]) < count:
        assert time.monotonic() < until, "the run does not begin"
        time.sleep(0.2)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_host_that_dies_ends_the_other_which_says_so(tmp_path, killed):
    program = ("-m", "clouds_jax.train", *LONG, f"--workdir={tmp_path}")
    with started(*program, hosts=2, devices=1) as processes:
        wait_for_steps(tmp_path, 2)
        processes[killed].kill()
        other = processes[1 - killed]
        _, error = other.communicate(timeout=120)
    assert other.returncode not in (0, 75)
    last = error.strip().splitlines()[-1]
    assert last.startswith("train: another host of the run ended") and "same command" in last


@pytest.mark.parametrize("told", [0, 1])
def test_a_host_that_is_told_to_stop_stops_both_at_one_step(tmp_path, told):
    program = ("-m", "clouds_jax.train", *LONG, f"--workdir={tmp_path}")
    with started(*program, hosts=2, devices=1) as processes:
        wait_for_steps(tmp_path, 2)
        os.kill(processes[told].pid, signal.SIGTERM)
        ended = [process.communicate(timeout=120)[1] for process in processes]
        assert [process.returncode for process in processes] == [75, 75], ended
    (step,) = [int(p.name) for p in (tmp_path / "checkpoints").iterdir()]
    assert step >= 2
    train(tmp_path, *LONG, f"--config.steps={step + 2}", hosts=2)
    assert (tmp_path / "checkpoints" / str(step + 2)).exists()


COUNT = """
import json
import numpy as np
from clouds_jax import hosts
from clouds_jax.evaluation.run import Accumulator
hosts.join()
sums = Accumulator("cityscapes19", "cityscapes19")
sums.total[0, 1] = 3_000_000_000 + hosts.index()
sums.images = {f"image of {hosts.index()}": 0.25}
total, images = sums.over_hosts()
print(json.dumps([int(total[0, 1]), str(total.dtype), images]))
"""


@pytest.mark.parametrize("slurm", [False, True])
def test_counts_beyond_32_bits_and_all_images_come_together(slurm):
    for output in run("-c", COUNT, hosts=2, devices=1, slurm=slurm):
        total, dtype, images = json.loads(output.splitlines()[-1])
        assert (total, dtype) == (6_000_000_001, "int64")
        assert images == {"image of 0": 0.25, "image of 1": 0.25}
