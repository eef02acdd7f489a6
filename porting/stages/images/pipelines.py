"""Text-to-image pipelines of diffusers: which one it is, loaded, on the device."""

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
_ASKED = ("prompt", "height", "width", "num_inference_steps", "guidance_scale", "generator")
_ALLOWED = (
    "config.generate.diffusers.model is a folder with a model_index.json, as save_pretrained"
    " writes it, or a name on the Hugging Face hub such as 'stabilityai/stable-diffusion-2'."
)
_READ = {".json", ".txt", ".model", ".safetensors", ".bin"}  # of a pipeline's folder


def identify(model: str, revision: str) -> str:
    """Which weights a model has: the commit on the hub, or a hash of a folder's files.

    Raises:
        OSError: there is no such folder or model.
        ValueError: a folder with a revision.
    """
    folder = _folder(model)
    if folder is None:
        return _commit(model, revision)
    if revision:
        raise ValueError(
            f"config.generate.diffusers.revision is {revision!r}, but {model} is a local folder;"
            " only models on the hub have revisions. Leave it empty."
        )
    found = sorted(path for path in folder.rglob("*") if path.suffix in _READ)
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in found}
    return f"sha256:{hashlib.sha256(json.dumps(files).encode()).hexdigest()}"


def _folder(model: str) -> Path | None:
    """The folder that a model is; None for a name on the hub."""
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / _INDEX).is_file():
            raise FileNotFoundError(f"{model} holds no pipeline: it has no {_INDEX}. {_ALLOWED}")
        return path
    if model.startswith((".", "/", "~")) or model.count("/") != 1 or path.is_file():
        raise FileNotFoundError(f"{model!r} is no folder. {_ALLOWED}")
    return None


def _commit(name: str, revision: str) -> str:
    """The commit of a model on the hub; without network that of the copy in the cache."""
    import huggingface_hub

    try:
        return huggingface_hub.model_info(name, revision=revision or None).sha or ""
    except Exception as error:  # of the network, the hub and its login, many kinds
        cached = huggingface_hub.try_to_load_from_cache(name, _INDEX, revision=revision or "main")
        if isinstance(cached, str):
            return Path(cached).parent.name
        raise OSError(
            f"{name} is no folder here and cannot be read from the hub: {_first(error)} Is the name"
            f" right, the network there, access granted (HF_TOKEN)? {_ALLOWED}"
        ) from error


def load(
    model: str, *, revision: str, variant: str, dtype: str, scheduler: str, offload: str,
    attention_slicing: bool,
) -> Any:  # fmt: skip
    """The pipeline with its scheduler, on the GPU if there is one.

    Args:
        model: see `identify`, whose `revision` this is.
        variant, dtype, scheduler, offload, attention_slicing: see `diffusion.Diffusion`.

    Raises:
        OSError: its files are not there or damaged.
        ValueError: it is no text-to-image pipeline.
    """
    _torchvision.prepare()
    import transformers

    diffusers: Any = importlib.import_module("diffusers")  # types do not see its lazy names
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
    except Exception as error:  # of safetensors, pickle, JSON and the classes themselves
        raise OSError(f"{model} cannot be read: {_first(error)} {_ALLOWED}") from error
    takes = inspect.signature(pipe.__call__).parameters
    if lacking := [name for name in _ASKED if name not in takes]:
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
    if "vae" in pipe.components:  # then it decodes the images of a batch one by one
        pipe.vae.enable_slicing()
    if not gpu:
        _sample_by_sample(pipe)
        return pipe
    if offload == "model":
        pipe.enable_model_cpu_offload()
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload()
    else:
        pipe.to("cuda")
    return pipe


def _sample_by_sample(pipe: Any) -> None:
    """Lets all linear layers multiply the samples of a batch one by one.

    A product of matrices is rounded differently when it has more rows. On a CPU nothing else
    depends on the batch, and nothing is lost by it.
    """

    def forward(layer: torch.nn.Linear, input: torch.Tensor) -> torch.Tensor:
        rows = [functional.linear(row, layer.weight, layer.bias) for row in input.split(1)]
        return torch.cat(rows)

    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            for layer in component.modules():
                if isinstance(layer, torch.nn.Linear):
                    layer.forward = functools.partial(forward, layer)


def is_cut(pipe: Any, prompt: str) -> bool:
    """Whether every text encoder of the pipeline reads but the beginning of a prompt."""
    found = [one for name, one in pipe.components.items() if name.startswith("tokenizer") and one]
    return bool(found) and all(len(one(prompt).input_ids) > one.model_max_length for one in found)


def _first(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
