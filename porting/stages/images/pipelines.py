"""Identifies and loads text-to-image pipelines of diffusers."""

import functools
import hashlib
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from porting import _torchvision
from porting.files.open import sha256

_INDEX = "model_index.json"
_REQUIRED = ("prompt", "height", "width", "num_inference_steps", "guidance_scale", "generator")
_ALLOWED = (
    "config.generate.diffusers.model is a folder with a model_index.json, as save_pretrained"
    " writes it, or a name on the Hugging Face hub such as 'stabilityai/stable-diffusion-2'."
)
_SUFFIXES = {".json", ".txt", ".model", ".safetensors", ".bin"}  # of a pipeline's files


def identify(model: str, revision: str) -> str:
    """Identity of a model's weights: the commit on the hub, or a hash of a folder's files.

    Raises:
        OSError: there is no such folder or model.
        ValueError: a revision is given for a folder.
    """
    folder = _folder(model)
    if folder is None:
        return _commit(model, revision)
    if revision:
        raise ValueError(
            f"config.generate.diffusers.revision is {revision!r}, but {model} is a local folder;"
            " only models on the hub have revisions. Leave it empty."
        )
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
    return f"sha256:{hashlib.sha256(json.dumps(files).encode()).hexdigest()}"


def _folder(model: str) -> Path | None:
    """The folder of a model; None for a name on the hub."""
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / _INDEX).is_file():
            raise FileNotFoundError(f"{model} holds no pipeline: it has no {_INDEX}. {_ALLOWED}")
        return path
    if model.startswith((".", "/", "~")) or model.count("/") != 1 or path.is_file():
        raise FileNotFoundError(f"{model!r} is no folder. {_ALLOWED}")
    return None


def _commit(name: str, revision: str) -> str:
    """The commit of a model on the hub; without a network, of the copy in the cache."""
    import huggingface_hub

    try:
        return huggingface_hub.model_info(name, revision=revision or None).sha or ""
    except Exception as error:  # network, hub and login raise many kinds
        cached = huggingface_hub.try_to_load_from_cache(name, _INDEX, revision=revision or "main")
        if isinstance(cached, str):
            return Path(cached).parent.name
        raise OSError(
            f"{name} is no folder here and cannot be read from the hub: {_first(error)} Is the name"
            f" right, the network there, access granted (HF_TOKEN)? {_ALLOWED}"
        ) from error


def load(
    model: str,
    *,
    revision: str,
    variant: str,
    dtype: str,
    scheduler: str,
    offload: str,
    attention_slicing: bool,
) -> Any:
    """Loads a pipeline with its scheduler, on the GPU if there is one.

    Args:
        model: folder, or name on the Hugging Face hub.
        revision: commit, as `identify` returns it.
        variant, dtype, scheduler, offload, attention_slicing: see `diffusion.Diffusion`.

    Raises:
        OSError: its files are missing or damaged.
        ValueError: it is no text-to-image pipeline.
    """
    _torchvision.prepare()
    import transformers

    diffusers: Any = importlib.import_module("diffusers")  # its lazy names are invisible to pyright
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    gpu = torch.cuda.is_available()
    kwargs: dict[str, Any] = {
        "dtype": getattr(torch, dtype) if gpu else torch.float32,
        "variant": variant or None,
    }
    folder = _folder(model)
    if folder is None:
        kwargs["revision"] = revision
    where = str(folder or model)
    try:
        pipe: Any = diffusers.DiffusionPipeline.from_pretrained(where, **kwargs)
    except Exception as error:  # safetensors, pickle, JSON and the classes raise many kinds
        raise OSError(f"{model} cannot be read: {_first(error)} {_ALLOWED}") from error
    takes = inspect.signature(pipe.__call__).parameters
    if lacking := [name for name in _REQUIRED if name not in takes]:
        raise ValueError(
            f"{model} is a {type(pipe).__name__}, no text-to-image pipeline: it takes no"
            f" {', '.join(lacking)}. {_ALLOWED}"
        )
    if scheduler == "euler":
        flow = "FlowMatch" in type(pipe.scheduler).__name__
        kind = (
            diffusers.FlowMatchEulerDiscreteScheduler if flow else diffusers.EulerDiscreteScheduler
        )
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    if attention_slicing:
        pipe.enable_attention_slicing()
    if "vae" in pipe.components:
        pipe.vae.enable_slicing()  # decodes the images of a batch one by one
    if not gpu:
        _make_batch_invariant(pipe)
        return pipe
    if offload == "model":
        pipe.enable_model_cpu_offload()
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload()
    else:
        pipe.to("cuda")
    return pipe


def _make_batch_invariant(pipe: Any) -> None:
    """Makes all linear layers process the samples of a batch one by one.

    A matrix product is rounded differently when it has more rows. On a CPU nothing else depends on
    the batch size, and this costs no time.
    """

    def forward(layer: torch.nn.Linear, input: torch.Tensor) -> torch.Tensor:
        rows = [functional.linear(row, layer.weight, layer.bias) for row in input.split(1)]
        return torch.cat(rows)

    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            for layer in component.modules():
                if isinstance(layer, torch.nn.Linear):
                    layer.forward = functools.partial(forward, layer)


def is_truncated(pipe: Any, prompt: str) -> bool:
    """Whether every text encoder of the pipeline truncates a prompt."""
    tokenizers = [t for name, t in pipe.components.items() if name.startswith("tokenizer") and t]
    longer = [len(t(prompt).input_ids) > t.model_max_length for t in tokenizers]
    return bool(longer) and all(longer)


def _first(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
