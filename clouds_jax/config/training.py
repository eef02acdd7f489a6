"""How an experiment is trained: loss, optimizer, schedule of logs and checkpoints."""

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Any

import optax
from flax import nnx

from clouds_jax.config.diff import with_added_keys
from clouds_jax.losses import segmentation
from clouds_jax.losses.matching import LossWeights
from clouds_jax.nn.clouds import FPNSize, HeadSize
from clouds_jax.nn.encoders.convnext import ConvNeXt, Remat
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.training import optim
from clouds_jax.training.state import Filter, in_head, in_head_or_trunk
from clouds_jax.training.step import Loss

PRECISIONS = ("bfloat16", "tensorfloat32", "float32")  # names of jax_default_matmul_precision


@dataclasses.dataclass(frozen=True)
class EncoderTraining:
    """Whether the encoder is trained too, and how.

    Attributes:
        name: name of the encoder.
        weights: folder of converted weights; "": random weights.
        trainable: train the encoder with the head.
        lr_factor: factor on the learning rate of a trained encoder.
        drop_path: rate of stochastic depth in a trained encoder, 0..1.
        remat: what the gradient of a trained encoder computes again instead of keeping it: "none",
            "blocks" or "stages".
        dtype: dtype of the encoder's weights.

    Raises:
        ValueError: an encoder that cannot be trained, or an unknown remat.
    """

    name: str
    weights: str
    trainable: bool
    lr_factor: float
    drop_path: float
    remat: Remat
    dtype: str

    def __post_init__(self):
        if self.remat not in typing.get_args(Remat):
            raise ValueError(
                f"config.encoder.remat is {self.remat!r}; it must be one of:"
                f" {', '.join(typing.get_args(Remat))}."
            )
        if not self.trainable:
            return
        if not isinstance(
            nnx.eval_shape(lambda: get_encoder(self.name).build(nnx.Rngs(0))), ConvNeXt
        ):
            raise ValueError(
                f"config.encoder.trainable is True for {self.name}; only ConvNeXt can be trained:"
                " the batch norm of the others is that of evaluation."
            )
        if self.dtype != "float32":
            raise ValueError(
                f"config.encoder.trainable is True and encoder.dtype {self.dtype!r}; weights that"
                " are trained must be float32."
            )

    @property
    def trained(self) -> Filter:
        """Filter of the variables that are trained."""
        return in_head_or_trunk if self.trainable else in_head


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Mask2Former's set loss; see `losses.segmentation.set_loss`.

    Attributes:
        weights: weights of its terms.
        num_points: points at which masks are compared.
        oversample: candidate points per point.
        importance: share of the points that are chosen by uncertainty, 0..1.
    """

    weights: LossWeights
    num_points: int
    oversample: float
    importance: float

    def function(self, head: HeadSize | FPNSize) -> Loss:
        """The loss of this kind of head."""
        if isinstance(head, FPNSize):
            return segmentation.pixel_loss
        return functools.partial(
            segmentation.set_loss, weights=self.weights, num_points=self.num_points,
            oversample=self.oversample, importance=self.importance,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its learning rate; see `training.optim`.

    Attributes:
        schedule: arguments of `make_schedule`.
        weight_decay: decoupled weight decay, except on norms and query embeddings.
        clip_norm: largest L2 norm of all gradients together.
        encoder_factor: factor on the learning rate of a trained encoder; None: it is frozen.
    """

    schedule: Mapping[str, Any]
    weight_decay: float
    clip_norm: float
    encoder_factor: float | None

    def make(self) -> tuple[optax.GradientTransformation, optax.Schedule]:
        """The optimizer, and its learning rate by updates done."""
        tx = optim.make_optimizer(
            **self.schedule, weight_decay=self.weight_decay, clip_norm=self.clip_norm,
            encoder_factor=self.encoder_factor,
        )  # fmt: skip
        return tx, optim.make_schedule(**self.schedule)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Length, checkpoints and logs of a run.

    Attributes:
        seed: seed of initialisation, augmentation and matching points.
        steps: updates of the whole run.
        accumulate: portions of a batch that are computed one after the other, for one update.
        matmul_precision: of products of float32 numbers, one of `PRECISIONS`.
        log_every: steps from one line to the next.
        checkpoint_every: steps from one checkpoint to the next.
        keep: number of newest checkpoints that stay.
        keep_best: keep also the checkpoint that scored best on each evaluated dataset.
        init_from: run or weights folder to start from; "": none.
        sharding: (regular expression on a path in the state, rule), the first match wins.
        tensorboard: write event files.
        wandb: project and name in W&B.
        compile_cache: folder of compiled programs.
        profile: first step and number of steps to record.
        debug: allow random weights and made-up data.
        nans: stop at the operation that produces the first NaN.
        compiles: log every compilation.

    Raises:
        ValueError: a number below 1, or an unknown precision.
    """

    seed: int
    steps: int
    accumulate: int
    matmul_precision: str
    log_every: int
    checkpoint_every: int
    keep: int
    keep_best: bool
    init_from: str
    sharding: tuple[tuple[str, str], ...]
    tensorboard: bool
    wandb: Mapping[str, str]
    compile_cache: str
    profile: Mapping[str, int]
    debug: bool
    nans: bool
    compiles: bool

    def __post_init__(self):
        for key in ("steps", "accumulate", "log_every", "checkpoint_every", "keep"):
            if getattr(self, key) < 1:
                raise ValueError(f"config.{key} is {getattr(self, key)}; it must be at least 1.")
        _check_precision(self.matmul_precision)


def read_encoder(config: Mapping[str, Any]) -> EncoderTraining:
    """How the encoder of a config is trained."""
    return EncoderTraining(**config["encoder"])


def read_loss(config: Mapping[str, Any]) -> LossConfig:
    """The loss of a config."""
    loss = dict(config["loss"])
    weights = {name: loss.pop(name) for name in ("cls", "mask", "dice", "no_object")}
    return LossConfig(LossWeights(**weights), **loss)


def read_optimizer(config: Mapping[str, Any]) -> OptimizerConfig:
    """The optimizer of a config."""
    numbers = dict(config["optimizer"]) | {"steps": config["steps"]}
    encoder = config["encoder"]
    return OptimizerConfig(
        weight_decay=numbers.pop("weight_decay"),
        clip_norm=numbers.pop("clip_norm"),
        schedule=numbers,
        encoder_factor=encoder["lr_factor"] if encoder["trainable"] else None,
    )


def read_run(config: Mapping[str, Any]) -> RunConfig:
    """Length, checkpoints and logs of a config."""
    names = {field.name for field in dataclasses.fields(RunConfig)} - {"debug", "nans", "compiles"}
    debug = config["debug"]
    values = {name: config[name] for name in names}
    values["sharding"] = tuple((pattern, rule) for pattern, rule in config["sharding"])
    return RunConfig(
        **values, debug=debug["enabled"], nans=debug["nans"], compiles=debug["compiles"]
    )


def read_precision(config: Mapping[str, Any]) -> str | None:
    """Precision of the products of an experiment's programs, for `runtime.use_matmul_precision`.

    Args:
        config: the config as JSON, also of a run from before it had this key.

    Returns:
        One of `PRECISIONS`; None for the config of a model alone, which no run belongs to.

    Raises:
        ValueError: an unknown precision.
    """
    if "steps" not in config:
        return None
    precision = with_added_keys(config)["matmul_precision"]
    _check_precision(precision)
    return precision


def _check_precision(name: str) -> None:
    if name not in PRECISIONS:
        raise ValueError(
            f"config.matmul_precision is {name!r}; it must be one of: {', '.join(PRECISIONS)}."
        )
