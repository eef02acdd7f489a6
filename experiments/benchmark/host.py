"""Rows of whole programs as the host sees them: loading, evaluating, starting a training."""

import io
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from PIL import Image

from clouds_jax.data import augment, records
from clouds_jax.data.codecs import CODECS
from clouds_jax.evaluation import run as evaluation
from clouds_jax.evaluation.protocols import get_protocol
from clouds_jax.runtime import CACHE_VARIABLE
from clouds_jax.streets import render
from experiments.benchmark.rows import CLASSES, Setting, labels, models, ours, pixels
from experiments.benchmark.timing import Case, HostProgram

_GTA = (1052, 1914)
_NOISE = 2.5  # grey levels: drawn streets are as hard to compress then as frames of GTA5
_FIRST = "first step"  # in a training's log


def loader(setting: Setting) -> Iterator[Case]:
    """Records to augmented crops on one core, against PNG files and resizing whole images."""
    count = setting.choose(1, 8, 8)
    size, crop = setting.choose(((128, 256), (64, 64)), (_GTA, (768, 768)), (_GTA, (768, 768)))
    settings = augment.Augmentation(
        crop, jitter_size=(720 * size[0] // 1052, 1280 * size[1] // 1914)
    )
    frames = [_frame(i, size) for i in range(count)]
    files = [tuple(map(_png, frame)) for frame in frames]

    def theirs() -> list[np.ndarray]:
        views = [_whole(*pair, _rng(i), settings) for i, pair in enumerate(files)]
        return [np.stack(x) for x in zip(*views, strict=True)]

    program = HostProgram(theirs, _coarse) if setting.against == "torch" else None
    for codec in CODECS:
        stored = [
            records.encode(records.Example(str(i), image, label), codec)
            for i, (image, label) in enumerate(frames)
        ]

        def ours(stored: Sequence[bytes]) -> list[np.ndarray]:
            views = []
            for i, record in enumerate(stored):
                example = records.decode(record)
                assert example.image is not None and example.label is not None
                views.append(augment.augment(example.image, example.label, _rng(i), settings))
            return [np.stack(x) for x in zip(*views, strict=True)]

        megabytes = sum(map(len, stored)) / count / 1e6
        yield Case(
            f"loader: {codec}, {count} images of {size[0]}x{size[1]}, crops of {crop[0]}", ours,
            (stored,), program, host=True,
            outputs=None if codec.startswith("jpeg") else _coarse,
            note=f"one core, against PNG and resizing the whole image; {megabytes:.1f} MB a record,"
            f" {sum(len(image) + len(label) for image, label in files) / count / 1e6:.1f} as PNG",
        )  # fmt: skip


def _coarse(views: list[np.ndarray]) -> list[np.ndarray]:
    """Images in blocks of 32 pixels, and how often each id occurs: rounding is not to be seen."""
    images, ids = views
    b, h, w, _ = images.shape
    return [
        images.reshape(b, h // 32, 32, w // 32, 32, 3).mean((2, 4)),
        np.bincount(ids.ravel(), minlength=256),
    ]


def _rng(i: int) -> np.random.Generator:
    return np.random.default_rng((7, i))


def _frame(index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A drawn street with the noise of a camera, and its label."""
    image, label = render("oldtown-day", 0, index, size)
    noise = np.random.default_rng(index).normal(0, _NOISE, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), label


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def _whole(
    image: bytes, label: bytes, rng: np.random.Generator, settings: augment.Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """The same view of PNG files by resizing all of the image, as detectron2's mapper does."""
    picture, ids = (Image.open(io.BytesIO(data)) for data in (image, label))
    own = (picture.height, picture.width)
    h, w = augment.scaled_size(own, settings.jitter_size or own, rng.uniform(*settings.scale))
    u = rng.uniform(size=2)[0]
    y, x = augment.crop_offset((h, w), settings.crop, (u, u))
    out = []
    for part, way, fill in ((picture, Image.Resampling.BILINEAR, 0),
                            (ids, Image.Resampling.NEAREST, 255)):  # fmt: skip
        resized = np.asarray(part.resize((w, h), way))
        cut = resized[y : y + settings.crop[0], x : x + settings.crop[1]]
        pad = [(0, c - n) for c, n in zip(settings.crop, cut.shape, strict=False)]
        out.append(np.pad(cut, pad + [(0, 0)] * (cut.ndim - 2), constant_values=fill))
    out[0] = augment.jitter_colour(out[0], rng)
    if rng.random() < settings.flip:
        out = [array[:, ::-1] for array in out]
    return np.ascontiguousarray(out[0]), np.ascontiguousarray(out[1])


def evaluate(setting: Setting) -> Iterator[Case]:
    """Images and labels in memory to the confusion matrix, in batches of one."""
    encoder = setting.choose("convnext_tiny", "convnext_tiny", "convnext_large_d_320")
    size = setting.choose((64, 128), (512, 1024), (1024, 2048))
    count = setting.choose(2, 3, 16)
    images, label = pixels(count, size), labels(count, size)
    examples = [records.Example(str(i), images[i], label[i]) for i in range(count)]
    graphdef, state = nnx.split(ours(encoder, setting))

    def run() -> evaluation.Result:
        return evaluation.evaluate(
            graphdef, [state], examples, dataset="benchmark", label_space="cityscapes19",
            model_space="cityscapes19", protocol=get_protocol("native"), panels=0,
            devices=jax.devices()[:1],
        )  # fmt: skip

    program = None
    if setting.against == "torch":
        predict = [models(encoder, setting).infer(images[i : i + 1]) for i in range(count)]

        def theirs() -> np.ndarray:
            total = np.zeros(CLASSES**2, np.int64)
            for one, seen in zip(predict, label, strict=True):
                pair = CLASSES * seen.astype(np.int64) + one.value()[0][0].astype(np.int64)
                total += np.bincount(pair[seen < CLASSES], minlength=CLASSES**2)
            return total

        program = HostProgram(theirs)
    yield Case(
        f"evaluation: {encoder}, {count} x {size[0]}x{size[1]}", run, (), program, host=True,
    )  # fmt: skip


def start(setting: Setting) -> Iterator[Case]:
    """`warmup_streets` from the shell to the end of its first step, with an empty and a full cache.

    With two random images a step.
    """
    folder = Path(tempfile.mkdtemp())
    flags = ["--config=configs/warmup_streets.py:debug"]  # random weights and images
    if not setting.small:
        real = runpy.run_path("configs/warmup_streets.py")["get_config"]()
        flags += [f"--config.encoder.name={real.encoder.name}",
                  f"--config.data.crop={tuple(real.data.crop)}",
                  f"--config.loss.num_points={real.loss.num_points}"]  # fmt: skip
        flags += [f"--config.head.{k}={v}" for k, v in real.head.items() if isinstance(v, int)]

    def run(name: str) -> list[np.ndarray]:
        if name == "empty":
            shutil.rmtree(folder, ignore_errors=True)
        _until_first_step(flags, folder)
        return []

    try:
        for name in ("empty", "full"):
            yield Case(f"start: {name} compile cache", run, (name,), host=True,
                       note="process, imports, model, compilation and the first step")  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _until_first_step(flags: Sequence[str], folder: Path) -> None:
    """Starts a training and stops it when the first step is done."""
    workdir = folder / "runs" / str(time.time_ns())
    environment = os.environ | {CACHE_VARIABLE: str(folder / "cache")}
    command = [sys.executable, "-m", "clouds_jax.train", *flags, f"--workdir={workdir}"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if _FIRST in line:
                process.kill()
                return
    raise RuntimeError(f"the training ended before its first step: {''.join(said[-5:])}")


ROWS: dict[str, Callable[[Setting], Iterator[Case]]] = {
    "loader": loader,
    "evaluation": evaluate,
    "start": start,
}
