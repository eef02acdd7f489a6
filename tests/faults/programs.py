"""What the drill runs: each program at its smallest, with the inputs that it needs."""

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
RUN = ("--config=configs/warmup_camvid_fpn.py:debug", "--config.data.batch={'fake': 2}")


@dataclasses.dataclass(frozen=True)
class Program:
    """A program of the drill.

    Attributes:
        name: its name in the table.
        command: (inputs, output folder) -> module and arguments.
        prepare: copies inputs that lie inside of the output folder.
        stopped: statuses that a program may end with after SIGTERM or Ctrl-C.
        kills: how often it is killed, each time at another moment.
        trains: whether it starts a training of its own.
    """

    name: str
    command: Callable[[Path, Path], Sequence[object]]
    prepare: Callable[[Path, Path], object] = lambda base, out: out.mkdir(parents=True)
    stopped: tuple[int, ...] = (130, 143)
    kills: int = 3
    trains: bool = False


def _with_shards(base: Path, out: Path) -> None:
    shutil.copytree(base / "shards", out / "shards")


def _train(base: Path, out: Path, *more: str) -> Sequence[object]:
    return (
        "clouds_jax.train", *RUN, "--config.steps=5", "--config.checkpoint_every=1",
        "--config.log_every=1", f"--config.data.shards={base}/shards", f"--workdir={out}/run",
        *more,
    )  # fmt: skip


PROGRAMS = (
    Program("data.build", lambda base, out: (
        "clouds_jax.data.build", "streets_oldtown_day", "--count=16", "--shards=4", "--workers=2",
        f"--output={out}/shards")),
    Program("data.loader", lambda base, out: (
        "clouds_jax.data.loader", "--ref=fake/train", f"--shards={base}/shards", "--crop", 64, 64,
        f"--output={out}/panel.png")),
    Program("train", _train, stopped=(75, 130, 143), kills=5),
    Program("evaluate", lambda base, out: (
        "clouds_jax.evaluate", f"--workdir={base}/run", "--datasets=fake/train",
        f"--shards={base}/shards", f"--output={out}/evaluation")),
    Program("predict", lambda base, out: (
        "clouds_jax.predict", f"--weights={base}/weights", "--scores", f"--output={out}/out",
        base / "photos")),
    Program("pseudo", lambda base, out: (
        "clouds_jax.pseudo", f"--workdir={base}/run", f"--shards={out}/shards", "--ref=fake"),
        _with_shards),
    Program("embed", lambda base, out: (
        "clouds_jax.embed", f"--shards={out}/shards", "--ref=fake", "--size", 64, 96,
        "--sam=sam_debug", f"--weights={base}/sam"), _with_shards),
    Program("text", lambda base, out: (
        "clouds_jax.text", f"--weights={base}/clip", "--space=cityscapes19",
        f"--output={out}/text")),
    Program("visualise panel", lambda base, out: (
        "clouds_jax.visualise", "panel", "fake/train", f"--shards={base}/shards",
        f"--output={out}/panel.png")),
    Program("visualise curves", lambda base, out: (
        "clouds_jax.visualise", "curves", base / "run", f"--output={out}/curves.png")),
    Program("porting convert", lambda base, out: (
        "porting", "convert", "open_clip_convnext", base / "encoder.safetensors",
        "--force", f"--output={out}/weights")),
    Program("porting invert", lambda base, out: (
        "porting", "invert", base / "encoder", "--force",
        f"--output={out}/back.safetensors")),
    Program("porting generate", lambda base, out: (
        "porting", "generate", "--config=configs/stages/laptop.py:debug", f"--workdir={out}",
        f"--config.generate.folder.path={base}/photos")),
    Program("experiments.run", lambda base, out: (
        "experiments.run", "table_camvid", "--debug", "--row=FPN head", "--seed=0",
        f"--workdir={out}/runs"), stopped=(75, 130, 143), kills=5, trains=True),
    Program("experiments.pipeline", lambda base, out: (
        "experiments.pipeline", "--config=configs/stages/laptop.py:debug", f"--workdir={out}",
        "--only=generate", "--only=warmup", f"--config.generate.folder.path={base}/photos",
        "--config.warmup.encoder=", "--config.warmup.config=configs/warmup_camvid_fpn.py:debug"),
        stopped=(75, 130, 143), kills=5, trains=True),
)  # fmt: skip


def make_inputs(base: Path, run: Callable[[Sequence[object]], None], *, trained: bool) -> None:
    """Makes the inputs of all programs; `run` runs a module with its arguments.

    Args:
        base: folder to create.
        run: runs a module with its arguments.
        trained: also train a small run, which takes longest.
    """
    sys.path.insert(0, str(ROOT / "tests" / "unit"))
    import porting_files
    from flax import nnx

    import clouds_jax
    from clouds_jax.nn.clip_text import SIZES, TextTower
    from clouds_jax.nn.encoders.registry import get_encoder
    from clouds_jax.nn.rngs import HostKeys
    from clouds_jax.nn.sam.registry import get_sam
    from clouds_jax.weights import save_weights

    base.mkdir(parents=True)
    (base / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        small = rng.integers(0, 256, (7, 10, 3), np.uint8)
        picture = Image.fromarray(small).resize((100, 70), Image.Resampling.BICUBIC)
        picture.save(base / "photos" / f"{i}.png")
    clouds_jax.build("convnext_debug", "camvid11").save(base / "weights")
    porting_files.save(base / "encoder.safetensors", porting_files.clip_state())

    def tree(build: Callable[[HostKeys], nnx.Module]) -> dict:
        return nnx.to_pure_dict(nnx.state(build(HostKeys(0))))

    size = SIZES["convnext_debug"]
    clip = {
        "encoder": tree(get_encoder("convnext_debug").build),
        "text": tree(lambda rngs: TextTower(size, rngs=rngs)),
    }
    about = {"target": {"text": {"quick_gelu": size.quick_gelu}}}
    save_weights(base / "clip", clip, about)
    sam = get_sam("sam_debug")
    save_weights(base / "sam", {"sam": tree(sam.build)}, {"target": {"sam": "sam_debug"}})
    run(("clouds_jax.data.build", "fake", "--shards=4", f"--output={base}/shards"))
    run(("porting", "convert", "open_clip_convnext", base / "encoder.safetensors",
         f"--output={base}/encoder"))  # fmt: skip
    if trained:
        run((*_train(base, base / "made"), "--config.steps=2"))
        (base / "made" / "run").rename(base / "run")


def module_of(command: Sequence[object]) -> list[str]:
    """The command line of a module with its arguments."""
    return [sys.executable, "-m", *map(str, command)]


def run_quietly(command: Sequence[object], environment: dict[str, str]) -> None:
    """Runs a module with its arguments, which must do all."""
    done = subprocess.run(
        module_of(command), cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
