"""Samples text from any causal language model of transformers: folder, hub name or GGUF file."""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from porting import _torchvision
from porting.files.open import sha256

_FILES = {".safetensors", ".bin", ".json", ".model", ".jinja", ".txt"}
# parts of the class names of causal models; transformers would also load a BERT as one
_CAUSAL = ("CausalLM", "LMHead", "ConditionalGeneration")
_ALLOWED = (
    "config.prompts.model is a folder, a name on the Hugging Face hub such as"
    " 'HuggingFaceTB/SmolLM2-135M-Instruct', or package:NAME, the folder of an installed package;"
    " config.prompts.gguf a GGUF file in it."
)


def locate(model: str) -> str:
    """The folder, or the name on the hub, of `config.prompts.model`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no such package is installed.
    """
    if model.startswith("package:"):
        name = model.removeprefix("package:")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"{model}: no package {name!r} is installed. {_ALLOWED}")
        return next(iter(spec.submodule_search_locations))
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path)
    if not model or model.startswith((".", "/", "~")) or model.count("/") > 1 or path.is_file():
        raise FileNotFoundError(f"{model!r} is no folder. {_ALLOWED}")
    return model


def identify(model: str, *, revision: str = "", gguf: str = "") -> dict[str, Any]:
    """Identity of a model's weights, without loading them: revision and hashes of local files.

    The revision of a model on the hub is its commit, that of a folder a hash of its files.

    Args:
        model: see `locate`.
        revision: branch, tag or commit on the hub.
        gguf: name of a GGUF file in the folder, or "".
    """
    where = locate(model)
    if not Path(where).is_dir():
        return {"model": model, "gguf": gguf, "revision": _commit(where, revision, gguf)}
    if revision:
        raise ValueError(
            f"config.prompts.revision is {revision!r}, but {model} is a local folder; only models"
            " on the hub have revisions. Leave it empty."
        )
    paths = sorted(path for path in Path(where).iterdir() if path.is_file())
    weights = [path.name for path in paths if path.suffix == ".gguf"]
    if gguf and gguf not in weights:
        raise FileNotFoundError(
            f"config.prompts.gguf is {gguf!r}, no such file is in {where}; GGUF files there:"
            f" {', '.join(weights) or 'none'}."
        )
    if not gguf and not (Path(where) / "config.json").is_file():
        hint = f"set config.prompts.gguf to one of: {', '.join(weights)}" if weights else _ALLOWED
        raise FileNotFoundError(f"{where} holds no model: it has no config.json; {hint}")
    read = [p for p in paths if (p.name == gguf if gguf else p.suffix in _FILES)]
    files = {path.name: sha256(path) for path in read}
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return {"model": model, "gguf": gguf, "revision": f"sha256:{digest}", "files": files}


class LanguageModel:
    """A causal language model with its tokenizer.

    Args:
        model: see `locate`.
        revision: revision that `identify` returned.
        gguf: name of a file of quantised weights, or "".
        dtype: dtype of the weights on a GPU; on a CPU they are float32.
        chat: whether the model must have a chat template.

    Raises:
        OSError: its files are missing or damaged.
        ValueError: it is no causal language model, or has no chat template.
    """

    def __init__(self, model: str, *, revision: str, gguf: str, dtype: str, chat: bool):
        _torchvision.prepare()  # transformers imports torchvision
        import transformers

        transformers.utils.logging.disable_progress_bar()
        where = locate(model)
        kwargs: dict[str, Any] = {"gguf_file": gguf} if gguf else {}
        if not Path(where).is_dir():
            kwargs["revision"] = revision
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(where, **kwargs)
            if chat and not tokenizer.chat_template:
                raise ValueError(
                    f"the tokenizer of {model} has no chat template, so it takes no instruction;"
                    " set config.prompts.mode to 'few_shot', which any model understands."
                )
            if torch.cuda.is_available():
                kwargs |= {"device_map": "auto", "dtype": getattr(torch, dtype)}
            else:
                kwargs |= {"dtype": torch.float32}
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                where, output_loading_info=True, **kwargs
            )
            self._model, info = loaded
        except ImportError as error:
            raise ValueError(
                f"{model}: a package is missing to read it: {_first(error)}"
            ) from error
        except (OSError, KeyError, SafetensorError, UnpicklingError) as error:
            raise OSError(f"{model} cannot be read: {_first(error)} {_ALLOWED}") from error
        except ValueError as error:
            if "AutoModelForCausalLM" not in str(error):
                raise
            raise ValueError(
                f"{model} is no causal language model ({_first(error)}). {_ALLOWED}"
            ) from error
        kinds = self._model.config.architectures or []
        if kinds and not any(part in kind for kind in kinds for part in _CAUSAL):
            raise ValueError(
                f"{model} is no causal language model but a {', '.join(kinds)}. {_ALLOWED}"
            )
        if missing := sorted(info["missing_keys"]):
            raise ValueError(
                f"{model} is no causal language model: its files lack {len(missing)} of the"
                f" weights, such as {missing[0]}. {_ALLOWED}"
            )
        self._model.eval()
        tokenizer.padding_side = "left"  # so that all texts of a batch continue at the same place
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        self._tokenizer = tokenizer

    def sample(
        self,
        prompts: Sequence[str],
        *,
        chat: bool,
        one_line: bool,
        seed: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
    ) -> list[str]:
        """Samples a continuation of each prompt; truncated ones end with "…".

        Args:
            prompts: messages to a chat model if `chat`, otherwise texts to continue.
            chat: put the prompts into the chat template.
            one_line: stop at the end of the line.
            seed: seed of the sampling.
            temperature: temperature of the next-token distribution.
            top_p: probability mass of nucleus sampling.
            max_new_tokens: largest length of a continuation, also limited by the model's context.
        """
        import transformers

        tokenizer, model = self._tokenizer, self._model
        if chat:
            messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
            prompts = [
                tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True)
                for m in messages
            ]
        inputs = tokenizer(
            list(prompts),
            return_tensors="pt",
            padding=True,
            add_special_tokens=not chat,  # a chat template writes them itself
            return_token_type_ids=False,
        ).to(model.device)
        start = inputs["input_ids"].shape[1]
        context = getattr(model.config, "max_position_embeddings", None) or start + max_new_tokens
        if context <= start:
            raise ValueError(f"the model reads {context} tokens, the prompt alone has {start}.")
        own = model.generation_config
        ends = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
        # a complete config, so that the model's own generation_config has no influence
        model.generation_config = transformers.GenerationConfig(
            do_sample=True,
            temperature=temperature,
            top_p=top_p,
            top_k=0,
            max_new_tokens=min(max_new_tokens, context - start),
            bos_token_id=own.bos_token_id,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )
        stop = [_AtNewline(tokenizer)] if one_line else []
        torch.manual_seed(seed)
        with torch.inference_mode():
            out = model.generate(**inputs, stopping_criteria=stop)[:, start:]
        end_ids = {end for end in (ends if isinstance(ends, list) else [ends]) if end is not None}
        texts = []
        for prompt_ids, ids in zip(inputs["input_ids"].tolist(), out.tolist(), strict=True):
            # decoded after the prompt's last token: SentencePiece drops the space before the first
            before, after = (
                tokenizer.decode(part, skip_special_tokens=True)
                for part in (prompt_ids[-1:], prompt_ids[-1:] + ids)
            )
            text = after.removeprefix(before)
            line, newline, _ = text.partition("\n")
            complete = not end_ids.isdisjoint(ids) or (one_line and newline)
            texts.append((line if one_line else text) + ("" if complete else "…"))
        return texts

    def memory(self) -> dict[str, float]:
        """Peak memory of all GPUs in GiB; empty without a GPU."""
        if not torch.cuda.is_available():
            return {}
        peaks = [torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())]
        return {"gpu": sum(peaks) / 2**30}


class _AtNewline:
    """Stopping criterion: the token with the first newline of each text in a batch."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        last = self._tokenizer.batch_decode(ids[:, -1:])
        return torch.tensor(["\n" in text for text in last], device=ids.device)


def _commit(name: str, revision: str, gguf: str) -> str:
    _torchvision.prepare()
    import transformers

    kwargs = {"gguf_file": gguf} if gguf else {}
    try:
        config = transformers.AutoConfig.from_pretrained(name, revision=revision or None, **kwargs)
    except (OSError, ValueError) as error:
        raise OSError(
            f"{name} is no folder here and cannot be read from the hub: {_first(error)} Is the name"
            f" right, the network there, access granted (HF_TOKEN)? {_ALLOWED}"
        ) from error
    return config._commit_hash or revision


def _first(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
