"""Models from runs, weights folders and names; models with random weights."""

import dataclasses
import fnmatch
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from clouds_jax import runtime
from clouds_jax.config.diff import with_added_keys
from clouds_jax.config.model import HEADS, ModelConfig, read_model
from clouds_jax.data.classes import LabelSpace, get_space, numbered_space
from clouds_jax.model.model import Model
from clouds_jax.nn.clouds import HeadSize
from clouds_jax.nn.rngs import HostKeys
from clouds_jax.training import checkpoint
from clouds_jax.weights import fill_module, load_weights, merged

MODELS_VARIABLE = "CLOUDS_MODELS"
_MODELS = "~/.cache/clouds_jax/models"
_HUB = "hf://"


def load(
    source: str | os.PathLike,
    *,
    step: checkpoint.Step = None,
    teacher: bool = False,
    config: Mapping[str, Any] | None = None,
) -> Model:
    """Loads a model with its weights.

    JAX's settings stay as they are: predictions of a program that calls this follow its own
    jax_default_matmul_precision, not the run's `config.matmul_precision`.

    Args:
        source: folder of a run, weights folder, name in `list_models()`, or "hf://org/name" for a
            weights folder on the Hugging Face hub.
        step: step of a run's checkpoint; None: the newest; "best" or "best:NAME/SPLIT": the one
            that scored best.
        teacher: load the EMA teacher instead of the student.
        config: config as JSON, for weights folders that do not describe themselves, and for
            settings of a run that training does not depend on, such as the ensemble; None: the
            stored config.

    Raises:
        FileNotFoundError: there is nothing at `source`, or no such checkpoint.
        ValueError: the weights are of another model, or do not say what model they are of.
    """
    runtime.use_compile_cache()
    folder = _locate(os.fspath(source))
    if (folder / "checkpoints").is_dir():
        return _load_run(folder, step, teacher, config)
    if step is not None or teacher:
        raise ValueError(f"{folder} is a weights folder; only runs have steps and teachers.")
    return _load_weights(folder, config)


def build(
    encoder: str,
    classes: int | str | Sequence[str] = "cityscapes19",
    *,
    head: str = "mask2former",
    seed: int = 0,
    dtype: str = "float32",
    weights: str | os.PathLike = "",
    **numbers: Any,
) -> Model:
    """A model with random weights.

    Args:
        encoder: name in `list_encoders()`.
        classes: a label space by name, the names of the classes, or their number.
        head: "mask2former" or "fpn".
        seed: seed of the random weights.
        dtype: dtype of the encoder, "float32" or "bfloat16"; the head's activations are float32.
        weights: folder with converted weights of the encoder; "": random weights.
        numbers: hyperparameters of the head, such as `num_queries`; see `nn.clouds.HeadSize` and
            `FPNSize`.

    Raises:
        KeyError, ValueError: an unknown name, or numbers that do not fit each other.
    """
    runtime.use_compile_cache()
    if head not in HEADS:
        raise ValueError(f"head is {head!r}; it must be one of: {', '.join(HEADS)}.")
    space = _space_of(classes)
    if HEADS[head] is HeadSize:
        numbers.setdefault("num_queries", max(HeadSize().num_queries, len(space)))
    config = ModelConfig(encoder, HEADS[head](**numbers), space, dtype)
    graphdef, state = nnx.split(config.build(HostKeys(seed)))
    state = jax.tree.map(jnp.asarray, state)
    if weights:
        tree, provenance = load_weights(weights, ("encoder",))
        whole = nnx.to_pure_dict(state) | tree
        graphdef, state = fill_module(
            config.build, whole, where=str(weights),
            hint=f"Are these the weights of {encoder}?",
        )  # fmt: skip
        return Model(graphdef, state, config, {"encoder_weights": provenance})
    return Model(graphdef, state, config, {})


def list_models(pattern: str = "*") -> list[str]:
    """Names that `load` takes: the weights folders below CLOUDS_MODELS.

    Args:
        pattern: shell pattern, such as "*streets*".
    """
    folder = _models_folder()
    names = sorted(p.parent.name for p in folder.glob("*/provenance.json"))
    return fnmatch.filter(names, pattern)


def _space_of(classes: int | str | Sequence[str]) -> LabelSpace:
    if isinstance(classes, str):
        return get_space(classes)
    if isinstance(classes, int):
        return get_space("cityscapes19") if classes == 19 else numbered_space(classes)
    return numbered_space(len(classes), tuple(classes))


def _models_folder() -> Path:
    return Path(os.environ.get(MODELS_VARIABLE, _MODELS)).expanduser()


def _locate(source: str) -> Path:
    """The folder of a source, see `load`."""
    if source.startswith(_HUB):
        return _download(source.removeprefix(_HUB))
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    named = _models_folder() / source
    if "/" not in source and (named / "provenance.json").exists():
        return named
    if folder.exists():
        raise ValueError(
            f"{source} is a file; give the folder of a run or of weights. A checkpoint of PyTorch"
            f" becomes one by `python -m porting convert FAMILY {source} --output FOLDER`."
        )
    names = list_models()
    known = f"; models by name: {', '.join(names)}" if names else ""
    raise FileNotFoundError(
        f"there is no folder {source}{known}. Give the --workdir of a run, a folder that `python -m"
        f" porting convert` made, or a name below {_models_folder()} (set {MODELS_VARIABLE} to"
        " another)."
    )


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(f"{_HUB}{name} needs a package: pip install huggingface_hub.") from error
    try:
        return Path(snapshot_download(name))
    except Exception as error:  # the hub's client raises many kinds
        raise ValueError(f"{_HUB}{name} cannot be downloaded: {error}") from error


def _load_run(
    folder: Path, step: checkpoint.Step, teacher: bool, config: Mapping[str, Any] | None
) -> Model:
    tree, saved = checkpoint.load_run(folder, step, teacher=teacher)
    trained = read_model(with_added_keys(saved["config"] | {"space": saved.get("space")}))
    wanted = trained
    if config is not None:
        wanted = read_model(with_added_keys(config))
        _check_same_model(trained, wanted, folder)
    tree.pop("sam", None)  # it has no part in what is predicted
    ensemble = tree.pop("ensemble", None)
    if wanted.ensemble:  # a run may have been without it
        source = config or saved["config"]
        matrices = {} if ensemble else wanted.class_matrices(source["encoder"]["weights"])
        tree["ensemble"] = ensemble or matrices["ensemble"]
    about = {
        "run": str(folder), "step": int(saved["step"]), "commit": saved.get("commit", ""),
        "versions": saved.get("versions", {}), "config": saved["config"],
    }  # fmt: skip
    return _filled(tree, wanted, folder, about)


def _load_weights(folder: Path, config: Mapping[str, Any] | None) -> Model:
    tree, provenance = load_weights(folder, ("encoder", "head", "ensemble"))
    if config is None:
        described = _described(provenance, folder)
    else:
        described = read_model(with_added_keys(config))
    if "ensemble" not in tree:
        tree = merged(tree, described.class_matrices(folder))
    about = {"weights": str(folder), "provenance": provenance, "config": described.as_json()}
    return _filled(tree, described, folder, about)


def _described(provenance: Mapping[str, Any], folder: Path) -> ModelConfig:
    """The model that a weights folder describes."""
    if "model" in provenance:
        return read_model(provenance["model"])
    target = provenance.get("target") or {}
    if not target.get("encoder") or not target.get("head"):
        kinds = ", ".join(k for k in ("encoder", "head", "text", "sam") if target.get(k))
        raise ValueError(
            f"{folder} holds no whole model but: {kinds or 'it does not say what'}. For an encoder"
            " alone use clouds_jax.build(encoder=NAME, weights=FOLDER); of a folder that does not"
            " describe itself name the config that does (--config)."
        )
    classes = target.get("classes")
    space = get_space("cityscapes19") if classes in (None, 19) else numbered_space(classes)
    return ModelConfig(target["encoder"], HeadSize(**target["head"]), space)


def _filled(
    tree: Mapping[str, Any], config: ModelConfig, folder: Path, about: Mapping[str, Any]
) -> Model:
    graphdef, state = fill_module(
        config.build, tree, where=str(folder),
        hint="Is this the config it was trained with?",
    )  # fmt: skip
    return Model(graphdef, state, config, about)


def _check_same_model(trained: ModelConfig, wanted: ModelConfig, folder: Path) -> None:
    head = dataclasses.replace(wanted.head, dtype=trained.head.dtype)  # activations are free
    for key, then, now in (
        ("label_space", trained.space.name, wanted.space.name),
        ("encoder.name", trained.encoder, wanted.encoder),
        ("head", trained.head, head),
    ):
        if then != now:
            raise ValueError(
                f"{folder} was trained with {key} {then}, the config now says {now}; leave "
                "--config away to take the run's own."
            )
