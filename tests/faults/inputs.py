"""Bad input for every program: what a person gets wrong, or a disk, or a download."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from programs import RUN

Command = Callable[[Path, Path], Sequence[object]]


@dataclasses.dataclass(frozen=True)
class Bad:
    """One bad input.

    Attributes:
        program: of `programs.PROGRAMS`.
        name: of the fault in the table.
        command: (inputs, folder) -> module and arguments; output goes to folder / "made".
        says: a word that the message must hold.
        environment: variables besides the usual ones.
    """

    program: str
    name: str
    command: Command
    says: str
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _bad(program: str, module: str, *cases: tuple[Any, ...]) -> list[Bad]:
    """Cases of one program: (name, arguments, word that the message must hold)."""

    def command(arguments: Callable[[Path, Path], Sequence[object]]) -> Command:
        return lambda base, out: (module, *arguments(base, out))

    return [Bad(program, name, command(arguments), *more) for name, arguments, *more in cases]


def _file(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _copied(source: Path, target: Path, damage: Callable[[Path], object]) -> Path:
    shutil.copytree(source, target)
    damage(target)
    return target


def _cut(folder: Path, pattern: str) -> None:
    """Cuts the largest file that fits to its half."""
    path = max((p for p in folder.rglob(pattern) if p.is_file()), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _emptied(folder: Path, pattern: str) -> None:
    for path in folder.rglob(pattern):
        if path.is_file():
            path.write_bytes(b"")


def _run_with_cut_step(base: Path, folder: Path) -> Path:
    return _copied(base / "run", folder / "run", lambda f: _cut(f / "checkpoints/2", "*"))


def _run_with_empty_step(base: Path, folder: Path) -> Path:
    return _copied(base / "run", folder / "run", lambda f: _emptied(f / "checkpoints/2", "*"))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def cases(base: Path) -> list[Bad]:
    """All bad inputs."""

    def train(*more: object) -> Callable[[Path, Path], Sequence[object]]:
        return lambda b, o: (*RUN, f"--workdir={o}/made", *more)

    def scored(*more: object) -> Callable[[Path, Path], Sequence[object]]:
        return lambda b, o: (f"--workdir={b}/run", f"--shards={b}/shards", f"--output={o}/made",
                             *more)  # fmt: skip

    def predicted(*more: object) -> Callable[[Path, Path], Sequence[object]]:
        return lambda b, o: (f"--weights={b}/weights", f"--output={o}/made", *more)

    def converted(content: bytes, name: str = "x.pth") -> Callable[[Path, Path], Sequence[object]]:
        return lambda b, o: ("convert", "open_clip_convnext", _file(o / name, content),
                             f"--output={o}/made")  # fmt: skip

    return [
        *_bad("train", "clouds_jax.train",
            ("missing config", lambda b, o: ("--config=none.py", f"--workdir={o}/made"), "none.py"),
            ("unknown mode", lambda b, o: ("--config=configs/warmup_camvid_fpn.py:debugg",
                                           f"--workdir={o}/made"), "debugg"),
            ("config without get_config", lambda b, o: (
                f"--config={_file(o / 'x.py', b'a = 1')}", f"--workdir={o}/made"), "get_config"),
            ("config that is no Python", lambda b, o: (
                f"--config={_file(o / 'x.py', b'a = (')}", f"--workdir={o}/made"), "x.py"),
            ("no workdir", lambda b, o: RUN, "workdir"),
            ("stray word", train("debug"), "debug"),
            ("misspelt key", train("--config.optimizer.lrr=1"), 'Did you mean "lr"'),
            ("value of another type", train("--config.steps=many"), "steps"),
            ("unknown encoder", train("--config.encoder.name=convnext_big"), "convnext_big"),
            ("odd crop", train("--config.data.crop=(64, 50)"), "multiples of 32"),
            ("unknown dataset", train("--config.data.batch={'nowhere': 2}"), "nowhere"),
            ("batch of no images", train("--config.data.batch={'fake': 0}"), "0 images"),
            ("workdir is a file", lambda b, o: (
                *RUN, f"--workdir={_file(o / 'file', b'')}"), "file"),
            ("no shards", lambda b, o: (
                "--config=configs/warmup_streets.py", f"--config.data.shards={o}/none",
                f"--workdir={o}/made"), "none"),
            ("no encoder weights", lambda b, o: (
                "--config=configs/warmup_camvid_fpn.py", "--config.encoder.weights=none",
                "--config.data.batch={'fake': 2}", "--config.evals={}",
                f"--config.data.shards={b}/shards", f"--workdir={o}/made"), "none"),
            ("no run to start from", train("--config.init_from=none"), "none"),
            ("joint phase without a warm-up", lambda b, o: (
                "--config=configs/joint_streets.py", "--config.init_from=",
                f"--workdir={o}/made"), "init_from"),
            ("no such platform", train(), "cuda", {"JAX_PLATFORMS": "cuda"}),
            ("one of two processes", train(), "JAX_COORDINATOR_ADDRESS",
             {"JAX_NUM_PROCESSES": "2"}),
            ("one of two Slurm tasks", train(), "JAX_COORDINATOR_ADDRESS",
             {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}),
            ("another config", lambda b, o: (
                *RUN, "--config.optimizer.lr=0.5", f"--workdir={b}/run"), "optimizer.lr"),
            ("damaged checkpoint", lambda b, o: (
                *RUN, "--config.steps=2", "--config.checkpoint_every=1", "--config.log_every=1",
                f"--config.data.shards={b}/shards",
                f"--workdir={_run_with_cut_step(b, o)}"
            ), "Whole: 1"),
        ),
        *_bad("evaluate", "clouds_jax.evaluate",
            ("no model", lambda b, o: (f"--output={o}/made",), "--workdir"),
            ("two models", scored(f"--weights={base}/weights"), "either"),
            ("missing run", lambda b, o: (f"--workdir={o}/none", f"--output={o}/made"), "none"),
            ("unknown dataset", scored("--datasets=nowhere/val"), "nowhere"),
            ("second dataset missing", scored("--datasets=fake/train,camvid/val"), "camvid/val"),
            ("unknown protocol", scored("--protocol=best"), "best"),
            ("bad size", scored("--datasets=fake/train", "--size=large"), "large"),
            ("no such step", scored("--datasets=fake/train", "--step=7"), "no checkpoint 7"),
            ("output is a file", lambda b, o: (
                f"--workdir={b}/run", f"--shards={b}/shards", "--datasets=fake/train",
                f"--output={_file(o / 'file', b'')}"), "file"),
            ("damaged checkpoint", lambda b, o: (
                f"--workdir={_run_with_cut_step(b, o)}",
                f"--shards={b}/shards", f"--output={o}/made"), "Whole: 1"),
            ("checkpoint of empty files", lambda b, o: (
                f"--workdir={_run_with_empty_step(b, o)}",
                f"--shards={b}/shards", f"--output={o}/made"), "Whole: 1"),
            ("damaged shards", lambda b, o: (
                f"--workdir={b}/run", "--datasets=fake/train", f"--output={o}/made",
                f"--shards={_copied(b / 'shards', o / 's', lambda f: _cut(f, '*.array_record'))}",
            ), "bytes"),
            ("encoder alone", lambda b, o: (
                f"--weights={b}/encoder", "--datasets=fake/train", f"--shards={b}/shards",
                f"--output={o}/made"), "encoder"),
        ),
        *_bad("predict", "clouds_jax.predict",
            ("no image", predicted(), "image"),
            ("missing image", predicted("none.jpg"), "none.jpg"),
            ("image of text", lambda b, o: (
                *predicted()(b, o), _file(o / "x.jpg", b"hello")), "x.jpg"),
            ("cut image", lambda b, o: (
                *predicted()(b, o),
                _file(o / "x.png", (b / "photos/0.png").read_bytes()[:2000])), "x.png"),
            ("checkpoint of PyTorch", lambda b, o: (
                f"--weights={b}/encoder.safetensors", f"--output={o}/made", b / "photos"),
             "porting convert"),
            ("damaged weights", lambda b, o: (
                f"--weights={_copied(b / 'weights', o / 'w', lambda f: _cut(f / 'arrays', '*'))}",
                f"--output={o}/made", b / "photos"), "/w"),
            ("output is a file", lambda b, o: (
                f"--weights={b}/weights", f"--output={_file(o / 'file', b'')}", b / "photos"),
             "file"),
            ("unknown flag", predicted("--colour=red", base / "photos"), "colour"),
            ("two images of one name", lambda b, o: (
                *predicted()(b, o), b / "photos/0.png",
                _file(o / "0.png", (b / "photos/1.png").read_bytes())), "0.png"),
        ),
        *_bad("pseudo", "clouds_jax.pseudo",
            ("missing images", lambda b, o: (
                f"--workdir={b}/run", f"--shards={o}", "--ref=none"), "none/train"),
            ("weights for a run", lambda b, o: (
                f"--workdir={b}/weights", f"--shards={b}/shards", "--ref=fake", "--name=made"),
             "weights"),
            ("no teacher", lambda b, o: (
                f"--workdir={b}/run", f"--shards={b}/shards", "--ref=fake", "--teacher",
                "--name=made"), "teacher"),
            ("part 3 of 2", lambda b, o: (
                f"--workdir={b}/run", f"--shards={b}/shards", "--ref=fake", "--shard=3/2",
                "--name=made"), "3/2"),
        ),
        *_bad("embed", "clouds_jax.embed",
            ("unknown SAM", lambda b, o: (
                f"--shards={b}/shards", "--ref=fake", "--sam=sam3", f"--weights={b}/sam"), "sam3"),
            ("missing weights", lambda b, o: (
                f"--shards={b}/shards", "--ref=fake", "--sam=sam_debug", f"--weights={o}/none"),
             "none"),
            ("another SAM's weights", lambda b, o: (
                f"--shards={b}/shards", "--ref=fake", "--sam=sam_debug_l", f"--weights={b}/sam"),
             "sam_debug"),
        ),
        *_bad("text", "clouds_jax.text",
            ("weights without a tower", lambda b, o: (
                f"--weights={b}/encoder", "--space=cityscapes19", f"--output={o}/made"), "text"),
            ("unknown classes", lambda b, o: (
                f"--weights={b}/clip", "--space=mine", f"--output={o}/made"), "mine"),
            ("vocabulary of text", lambda b, o: (
                f"--weights={b}/clip", "--space=cityscapes19", f"--output={o}/made",
                f"--vocabulary={_file(o / 'v.gz', b'hello')}"), "v.gz"),
        ),
        *_bad("visualise panel", "clouds_jax.visualise",
            ("missing run", lambda b, o: (
                "curves", o / "none", f"--output={o}/made/x.png"), "none"),
            ("missing shards", lambda b, o: (
                "panel", "fake/train", f"--shards={o}/none", f"--output={o}/made/x.png"), "none"),
            ("label of another size", lambda b, o: (
                "overlay", b / "photos/0.png", _file(o / "l.png", _png((9, 9))),
                f"--output={o}/made/x.png"), "9x9"),
            ("ids of no class", lambda b, o: (
                "overlay", _file(o / "i.png", _png((9, 9, 3))),
                _file(o / "l.png", _png((9, 9), 77)), f"--output={o}/made/x.png"), "77"),
            ("count of zero", lambda b, o: (
                "panel", "fake/train", f"--shards={b}/shards", "--count=0",
                f"--output={o}/made/x.png"), "count"),
            ("output is a folder", lambda b, o: (
                "panel", "fake/train", f"--shards={b}/shards", f"--output={o}"), "/"),
        ),
        *_bad("data.loader", "clouds_jax.data.loader",
            ("neither config nor dataset", lambda b, o: (), "--config"),
            ("missing shards", lambda b, o: (
                "--ref=fake/train", f"--shards={o}/none", f"--output={o}/made/x.png"), "none"),
            ("crop of zero", lambda b, o: (
                "--ref=fake/train", f"--shards={b}/shards", "--crop", 0, 0,
                f"--output={o}/made/x.png"), "0"),
            ("config of text", lambda b, o: (
                f"--config={_file(o / 'x.py', b'a = (')}", f"--output={o}/made/x.png"), "x.py"),
        ),
        *_bad("data.build", "clouds_jax.data.build",
            ("unknown dataset", lambda b, o: ("nowhere", f"--output={o}/made"), "nowhere"),
            ("no raw files named", lambda b, o: ("camvid", f"--output={o}/made"), "--raw"),
            ("missing raw folder", lambda b, o: (
                "camvid", f"--raw={o}/none", f"--output={o}/made"), "none"),
            ("raw is a file", lambda b, o: (
                "camvid", f"--raw={_file(o / 'file', b'')}", f"--output={o}/made"), "file"),
            ("empty raw folder", lambda b, o: (
                "gta5", f"--raw={_file(o / 'raw/x', b'').parent}", f"--output={o}/made"), "raw"),
            ("no workers", lambda b, o: (
                "fake", "--workers=0", f"--output={o}/made"), "workers"),
            ("count of files on disk", lambda b, o: (
                "camvid", f"--raw={o}", "--count=3", f"--output={o}/made"), "count"),
            ("output is a file", lambda b, o: (
                "fake", f"--output={_file(o / 'file', b'')}"), "file"),
            ("unknown split", lambda b, o: (
                "camvid", f"--raw={o}", "--split=best", f"--output={o}/made"), "best"),
        ),
        *_bad("porting convert", "porting",
            ("missing file", lambda b, o: (
                "convert", "open_clip_convnext", o / "none.pth", f"--output={o}/made"), "none.pth"),
            ("unknown family", lambda b, o: (
                "convert", "resnet_of_mine", b / "encoder.safetensors", f"--output={o}/made"),
             "resnet_of_mine"),
            ("Git LFS pointer", converted(LFS), "LFS"),
            ("HTML page", converted(b"<!DOCTYPE html><html><body>404</body></html>"), "HTML"),
            ("empty file", converted(b""), "empty"),
            ("file of text", converted(b"hello, world\n" * 40), "x.pth"),
            ("cut safetensors", lambda b, o: converted(
                (b / "encoder.safetensors").read_bytes()[:5000], "x.safetensors")(b, o),
             "x.safetensors"),
            ("pickle that runs code", converted(b"cos\nsystem\n(S'touch hacked'\ntR."), "x.pth"),
            ("another family's file", lambda b, o: (
                "convert", "sam", b / "encoder.safetensors", f"--output={o}/made"), "sam"),
            ("output is a file", lambda b, o: (
                "convert", "open_clip_convnext", b / "encoder.safetensors",
                f"--output={_file(o / 'file', b'')}"), "file"),
            ("unknown command", lambda b, o: ("transmogrify",), "transmogrify"),
        ),
        *_bad("porting invert", "porting",
            ("missing weights", lambda b, o: (
                "invert", o / "none", f"--output={o}/made/x.safetensors"), "none"),
            ("no weights folder", lambda b, o: (
                "invert", b / "photos", f"--output={o}/made/x.safetensors"), "photos"),
            ("unknown ending", lambda b, o: (
                "invert", b / "encoder", f"--output={o}/made/x.docx"), "docx"),
            ("damaged weights", lambda b, o: (
                "invert", _copied(b / "encoder", o / "w", lambda f: _cut(f / "arrays", "*")),
                f"--output={o}/made/x.safetensors"), "/w"),
        ),
        *_bad("porting generate", "porting",
            ("unknown key", lambda b, o: (
                "generate", "--config=configs/stages/laptop.py:debug", f"--workdir={o}/made",
                "--config.generate.cuont=3"), 'Did you mean "count"'),
            ("missing photos", lambda b, o: (
                "generate", "--config=configs/stages/laptop.py:debug", f"--workdir={o}/made",
                f"--config.generate.folder.path={o}/none"), "none"),
        ),
        *_bad("experiments.run", "experiments.run",
            ("unknown table", lambda b, o: ("table_mine",), "table_mine"),
            ("unknown row", lambda b, o: ("table_camvid", "--row=mine"), "mine"),
        ),
        *_bad("experiments.pipeline", "experiments.pipeline",
            ("missing config", lambda b, o: (
                "--config=none.py", f"--workdir={o}/made"), "none.py"),
            ("unknown stage", lambda b, o: (
                "--config=configs/stages/laptop.py:debug", f"--workdir={o}/made", "--only=dream"),
             "dream"),
        ),
    ]  # fmt: skip


def _png(shape: tuple[int, ...], value: int = 0) -> bytes:
    import io

    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.full(shape, value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
