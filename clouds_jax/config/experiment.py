"""From a config to the parts of a run: the last place that reads ConfigDicts.

Everything returned here takes, or took, plain numbers.
"""

import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import jax
import numpy as np
import optax
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from clouds_jax import sharding
from clouds_jax.data import loader, records
from clouds_jax.data.build import run
from clouds_jax.data.classes import get_space
from clouds_jax.data.generated import View, generated_batches
from clouds_jax.evaluation.protocols import Protocol, get_protocol
from clouds_jax.losses import segmentation
from clouds_jax.losses.matching import LossWeights
from clouds_jax.nn.clouds import (
    STRIDE,
    Clouds,
    EnsembleSize,
    FPNSize,
    HeadSize,
    build_model,
    text_rows,
)
from clouds_jax.nn.encoders.convnext import ConvNeXt
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.sam import registry as sams
from clouds_jax.selftrain.joint import SelfTraining, joint
from clouds_jax.selftrain.refine_rules import RefineRules
from clouds_jax.selftrain.teacher import Average
from clouds_jax.stages import embed, shard_set
from clouds_jax.text import class_matrix, class_names
from clouds_jax.training import checkpoint, optim, step
from clouds_jax.training.state import Filter, in_head, in_head_or_trunk
from clouds_jax.typing import Batch, Generated
from clouds_jax.weights import load_weights, merged

_ON_DEVICES = 2  # batches that wait on the devices
_HEADS = {"mask2former": HeadSize, "fpn": FPNSize}

# as written in configs/, or its JSON as a run keeps it
Config = ConfigDict | Mapping[str, Any]


def check(config: ConfigDict, mesh: Mesh) -> None:
    """Refuses what could only fail later, or train something else than was meant."""
    _check_encoder(config)
    classes = len(get_space(config.label_space))
    if config.head.name not in _HEADS:
        raise ValueError(
            f"config.head.name is {config.head.name!r}; it must be one of: {', '.join(_HEADS)}."
        )
    _model_numbers(config)
    if config.head.name == "mask2former" and config.head.num_queries < classes:
        raise ValueError(
            f"config.head.num_queries is {config.head.num_queries};"
            f" {classes} classes need at least {classes}."
        )
    sharding.check_batch(sum(config.data.batch.values()), mesh)
    if config.selftrain.enabled:
        _check_selftrain(config, mesh)
    if any(side <= 0 or side % STRIDE for side in config.data.crop):
        raise ValueError(
            f"config.data.crop is {tuple(config.data.crop)}; both sides must be multiples of"
            f" {STRIDE}, the encoder's largest stride."
        )
    for key in ("steps", "log_every", "checkpoint_every", "keep"):
        if config[key] < 1:
            raise ValueError(f"config.{key} is {config[key]}; it must be at least 1.")
    for ref, every in config.evals.items():
        if every < 1:
            raise ValueError(f"config.evals[{ref!r}] is {every}; it must be at least 1.")


def _check_encoder(config: ConfigDict) -> None:
    encoder = config.encoder
    spec = get_encoder(encoder.name)
    if not encoder.trainable:
        return
    if not isinstance(nnx.eval_shape(lambda: spec.build(nnx.Rngs(0))), ConvNeXt):
        raise ValueError(
            f"config.encoder.trainable is True for {encoder.name}; only ConvNeXt can be trained:"
            " the batch norm of the others is that of evaluation."
        )
    if encoder.dtype != "float32":
        raise ValueError(
            f"config.encoder.trainable is True and encoder.dtype {encoder.dtype!r}; weights that"
            " are trained must be float32."
        )


def trained(config: ConfigDict) -> Filter:
    """What is trained."""
    return in_head_or_trunk if config.encoder.trainable else in_head


def _check_selftrain(config: ConfigDict, mesh: Mesh) -> None:
    settings = selftraining(config)
    _view(config)  # raises for labels that there cannot be
    images = sum(config.data.generated.batch.values())
    if images <= 0 or images % mesh.size:
        raise ValueError(
            f"config.data.generated.batch sums to {images} images; {mesh.size} devices need a"
            f" positive multiple of {mesh.size}."
        )
    rules = settings.rules
    if rules.num_points < 1 or rules.min_area < rules.num_points - 1:
        raise ValueError(
            f"config.selftrain.rules.min_area is {rules.min_area} and num_points"
            f" {rules.num_points}; a component of more than min_area pixels must have num_points of"
            " them, and at least one."
        )
    if config.head.name != "mask2former":
        raise ValueError("config.selftrain needs config.head.name = 'mask2former'.")
    if not (config.init_from or config.debug.enabled):
        raise ValueError(
            "config.init_from is empty, and a teacher with random weights teaches nothing; give"
            " the --workdir of a warm-up run."
        )
    if settings.labels == "online":
        sams.get_sam(config.selftrain.sam.name)
        if not (config.selftrain.sam.weights or config.debug.enabled):
            raise ValueError(
                "config.selftrain.sam.weights is empty; give the folder that `python -m porting"
                " convert <SAM's file> --output <folder>` made."
            )


def selftraining(config: Config) -> SelfTraining:
    """The settings of the joint phase."""
    c = config["selftrain"]
    embedded = None
    if c["labels"] == "online" and not c["sam"].get("stored", True):
        embedded = functools.partial(sams.embed_on_device, sams.get_sam(c["sam"]["name"]))
    return SelfTraining(
        labels=c["labels"],
        average=Average(**dict(c["teacher"])),
        rules=RefineRules(**dict(c["rules"])),
        components=c["components"] or None,
        chunk=c["chunk"],
        embed=embedded,
    )


def prepare(config: ConfigDict) -> step.Prepare:
    """What the examples of a step are."""
    classes = len(get_space(config.label_space))
    if config.selftrain.enabled:
        return joint(selftraining(config), classes)
    return step.labelled(classes)


def shards_root(config: ConfigDict, workdir: pathlib.Path) -> pathlib.Path:
    """Where the shards are; in debug mode fake ones are made in the run's folder."""
    if not config.debug.enabled:
        return pathlib.Path(config.data.shards)
    root = workdir / "shards"
    if jax.process_index() == 0:
        for ref in {*config.data.batch, *config.data.generated.batch, *config.evals}:
            name, split = records.parse_ref(ref, config.data.split)
            run.build(name, raw=None, output=root, split=split, shards=1)
        if reads_embeddings(config):
            for ref in config.data.generated.batch:
                name, split = records.parse_ref(ref, config.data.split)
                size = tuple(config.data.crop)
                made = embed.Embed(root, f"{name}/{split}", config.selftrain.sam.name, size)
                shard_set.fill(made, progress=False)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("fake shards are built")
    return root


def batches(config: ConfigDict, shards: pathlib.Path, mesh: Mesh) -> Iterator[Batch]:
    """Endless training batches on the devices, made ahead; its position can be saved."""
    data = config.data
    dataset = loader.train_batches(
        data.batch.to_dict(), shards_root=shards, crop=tuple(data.crop), scale=tuple(data.scale),
        flip=data.flip, colour=data.colour, crop_offsets=data.crop_offsets,
        jitter_size=data.initial_size and tuple(data.initial_size),
        label_space=config.label_space, split=data.split, seed=config.seed,
        process_index=jax.process_index(), process_count=jax.process_count(),
        threads=data.threads, prefetch=data.buffer,
    )  # fmt: skip
    if config.selftrain.enabled:
        dataset = grain.experimental.ZipIterDataset([dataset, _generated(config, shards)])
    split = sharding.over_batch(mesh)

    def move(arrays: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        return {k: jax.make_array_from_process_local_data(split, v) for k, v in arrays.items()}

    def to_devices(arrays: Any) -> Batch:
        if isinstance(arrays, Mapping):
            return Batch(**move(arrays))
        labelled, generated = arrays
        return Batch(**move(labelled), generated=Generated(**move(generated)))

    # One thread copies ahead, so that the copy hides behind the step before.
    ahead = grain.experimental.ThreadPrefetchIterDataset(
        dataset.map(to_devices), prefetch_buffer_size=_ON_DEVICES
    )
    return iter(ahead)


def _generated(config: ConfigDict, shards: pathlib.Path) -> grain.IterDataset:
    data = config.data
    refs = {
        "/".join(records.parse_ref(ref, data.split)): count
        for ref, count in data.generated.batch.items()
    }
    return generated_batches(
        refs, shards_root=shards, view=_view(config), seed=config.seed,
        process_index=jax.process_index(), process_count=jax.process_count(),
        threads=data.threads, prefetch=data.buffer,
    )  # fmt: skip


def _view(config: ConfigDict) -> View:
    data = config.data
    stored = config.selftrain.labels == "stored"
    return View(
        size=tuple(data.crop), flip=data.generated.flip, colour=data.generated.colour,
        label=config.selftrain.map if stored else "",
        classes=len(get_space(config.label_space)),
        sam=config.selftrain.sam.name if reads_embeddings(config) else "",
        limit=data.generated.limit,
    )  # fmt: skip


def _asks_sam(config: Config) -> bool:
    """Whether steps ask SAM; the configs of runs from before it say nothing of it."""
    settings = config.get("selftrain") or {}
    return bool(settings) and settings["enabled"] and settings["labels"] == "online"


def images_per_step(config: ConfigDict) -> int:
    """Over all devices, generated ones among them."""
    generated = config.data.generated.batch.values() if config.selftrain.enabled else ()
    return sum(config.data.batch.values()) + sum(generated)


def reads_embeddings(config: Config) -> bool:
    """Whether SAM's embeddings come with the images, instead of being made in the step."""
    return _asks_sam(config) and config["selftrain"]["sam"].get("stored", True)


def evals(config: ConfigDict, shards: pathlib.Path) -> dict[str, int]:
    """Dataset -> scored every n steps; a dataset without shards is an error now, not then."""
    wanted = config.evals.to_dict() if config.eval.enabled else {}
    for ref in wanted:
        records.open_ref(ref, shards)
    return wanted


def model_builder(config: Config, *, training: bool = True) -> Callable[[nnx.Rngs], Clouds]:
    """`build(rngs)` of the model that a config (or its JSON) describes.

    Args:
        config: of the run.
        training: False leaves out what only a training step asks, which is SAM.
    """
    numbers = _model_numbers(config) | ({} if training else {"sam": None})

    def build_it(rngs: nnx.Rngs) -> Clouds:
        return build_model(**numbers, rngs=rngs)

    return build_it


def _model_numbers(config: Config) -> dict[str, Any]:
    """The arguments of `build_model`."""
    head, encoder = head_size(config), config["encoder"]
    names = class_names.class_names(config["label_space"])
    ensemble = ensemble_of(config)
    rows = None
    if ensemble or getattr(head, "classifier", "") == "text":
        rows = text_rows(encoder["name"], class_names.class_of_row(names))
    if ensemble:
        trained = class_names.class_names(ensemble.pop("trained_space") or config["label_space"])
        ensemble = EnsembleSize(rows, class_names.seen_classes(names, trained), **ensemble)
    sam = None
    if _asks_sam(config):
        spec = sams.get_sam(config["selftrain"]["sam"]["name"])
        sam = spec.decoder if reads_embeddings(config) else spec.build
    return dict(
        encoder=encoder["name"], head=head, classes=len(names), rows=rows, ensemble=ensemble,
        sam=sam, encoder_dtype=encoder["dtype"],
    )  # fmt: skip


def head_size(config: Config) -> HeadSize | FPNSize:
    """The numbers of the head."""
    head = {k: v for k, v in dict(config["head"]).items() if k != "ensemble"}
    return _HEADS[head.pop("name")](**head)


def ensemble_of(config: Config) -> dict[str, Any] | None:
    """The settings of the ensemble, or None where it is off; runs from before it have none."""
    settings = dict(config["head"].get("ensemble") or {})
    return settings if settings.pop("enabled", False) else None


def class_matrices(config: ConfigDict, folder: str | os.PathLike) -> dict[str, Any]:
    """The variables of the model that the text tower made, read beside the weights in `folder`.

    There are none for a model that reads no class names.
    """
    tree: dict[str, Any] = {}
    text_head = getattr(head_size(config), "classifier", "") == "text"
    if text_head or ensemble_of(config):
        found = class_matrix.load_class_matrix(folder, config.label_space)
        if text_head:
            tree["head"] = {"transformer_decoder": {"class_embed": {"matrix": found.matrix}}}
        if ensemble_of(config):
            scale = np.float32(found.logit_scale)
            tree["ensemble"] = {"matrix": found.matrix, "logit_scale": scale}
    return tree


def loss(config: ConfigDict) -> step.Loss:
    """The loss that belongs to the head."""
    if config.head.name == "fpn":
        return segmentation.pixel_loss
    c = config.loss
    weights = LossWeights(cls=c.cls, mask=c.mask, dice=c.dice, no_object=c.no_object)
    return functools.partial(
        segmentation.set_loss, weights=weights, num_points=c.num_points, oversample=c.oversample,
        importance=c.importance,
    )  # fmt: skip


def optimizer(config: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer and its learning rate by updates done."""
    numbers = config.optimizer.to_dict() | {"steps": config.steps}
    rate = {k: v for k, v in numbers.items() if k not in ("weight_decay", "clip_norm")}
    factor = config.encoder.lr_factor if config.encoder.trainable else None
    return optim.make_optimizer(**numbers, encoder_factor=factor), optim.make_schedule(**rate)


def protocol(config: ConfigDict) -> Protocol:
    """How the evaluations of the run score."""
    return get_protocol(config.eval.protocol)


def initial_weights(config: ConfigDict) -> dict[str, Any] | None:
    """What a run without checkpoints starts from; None: random weights, in debug mode only.

    The encoder is the converted one of `config.encoder.weights`, and beside it lies the class
    matrix of a model that reads class names; `config.init_from`, a run or a weights folder,
    replaces what it holds of encoder and head.
    """
    weights: dict[str, Any] = {}
    if config.encoder.weights:
        weights, _ = load_weights(config.encoder.weights, ("encoder",))
    if config.init_from:
        weights |= _weights_of(pathlib.Path(config.init_from))
    if not weights.get("encoder") and not config.debug.enabled:
        raise ValueError(
            "config.encoder.weights is empty, and a frozen encoder with random weights teaches"
            " nothing; make a folder with `python -m porting convert <family> <file> --output"
            " <folder>` (see `python -m porting convert --help`) and give that folder."
        )
    if _asks_sam(config) and config.selftrain.sam.weights:
        found, _ = load_weights(config.selftrain.sam.weights, ("sam",))
        weights["sam"] = dict(found["sam"])
        if reads_embeddings(config):  # and so asks no image encoder
            weights["sam"].pop("image_encoder", None)
    if config.encoder.weights:
        weights = merged(weights, class_matrices(config, config.encoder.weights))
    return weights or None


def _weights_of(path: pathlib.Path) -> dict[str, Any]:
    if (path / "checkpoints").is_dir():
        return checkpoint.load_run(path)[0]
    return load_weights(path, ("encoder", "head"))[0]


def jsonable(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(config.to_dict()))
