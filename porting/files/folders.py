"""The weight files of a folder: one file, or shards with or without an index."""

import json
import re
from pathlib import Path

FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
INDEX = ".index.json"
_ENDINGS = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".pkl", ".npz")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.(safetensors|bin)")
_SHOWN = 4  # names in a message


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder: those of Hugging Face's names, all shards, or the only one.

    Raises:
        FileNotFoundError: there are none, several that are no shards of one model, or some are
            missing; the message says which there are.
        ValueError: the folder is a `.pth` that was unzipped.
    """
    for name in FOLDER_FILES:
        path = folder / name
        if path.exists():
            return indexed_files(path) if name.endswith(INDEX) else [path]
    _refuse_unzipped(folder)
    files = sorted(path for path in folder.iterdir() if path.suffix in _ENDINGS and path.is_file())
    if shards := _shards(folder, files):
        return shards
    if len(files) == 1:
        return files
    if files:
        names = _few([path.name for path in files])
        raise FileNotFoundError(f"{folder} holds {names}; name one of them.")
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        _refuse_unzipped(inner)
    raise FileNotFoundError(
        f"{folder} has none of: {', '.join(FOLDER_FILES)}, and no other checkpoint; name the file."
    )


def _refuse_unzipped(folder: Path) -> None:
    if (folder / "data.pkl").exists() and (folder / "data").is_dir():
        raise ValueError(
            f"{folder} is a .pth that was unzipped (data.pkl and data/); give the .pth itself, or"
            f" zip the folder again: cd {folder.absolute().parent} && zip -0 -r {folder.name}.pth"
            f" {folder.name}"
        )


def indexed_files(index: Path) -> list[Path]:
    """The files that an index names, all in its folder.

    Raises:
        FileNotFoundError: some are missing, or outside of the folder.
        ValueError: the file is no index.
    """
    folder, names = index.parent, names_in_index(index)
    wrong = [name for name in names if Path(name).name != name or not (folder / name).exists()]
    if wrong:
        raise FileNotFoundError(
            f"{index} names {_few(wrong)}, not in {folder}; fetch what is missing, or the index of"
            " the files that are there."
        )
    return [folder / name for name in names]


def names_in_index(index: Path) -> list[str]:
    """Names of the files in Hugging Face's index of a model in shards, sorted.

    Raises:
        ValueError: the file is no index.
    """
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{index} is no index of a model in shards (JSON with a weight_map); fetch it again."
        ) from error


def _shards(folder: Path, files: list[Path]) -> list[Path]:
    """The shards of one model among the files, if all are there; they need no index."""
    shards = {path: match for path in files if (match := _SHARD.fullmatch(path.name))}
    if len({match.group(1, 3, 4) for match in shards.values()}) != 1:
        return []
    name, count, ending = next(iter(shards.values())).group(1, 3, 4)
    there = {int(match[2]) for match in shards.values()}
    missing = [number for number in range(1, int(count) + 1) if number not in there]
    if missing:
        names = [f"{name}-{number:05}-of-{count}.{ending}" for number in missing]
        raise FileNotFoundError(
            f"{folder} holds {len(there)} of {int(count)} shards, without {_few(names)}; fetch what"
            " is missing."
        )
    return list(shards)


def _few(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
