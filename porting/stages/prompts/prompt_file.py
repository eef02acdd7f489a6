"""Reads the prompts of images: the file of the prompts stage, or any list of lines."""

import json
from pathlib import Path

MAX_LENGTH = 2_000  # characters; far beyond the 77 tokens that text-to-image models read


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, in order.

    Args:
        path: `.jsonl` with the key "prompt" in each line, as the prompts stage writes it, or any
            other file with one prompt per line. Empty lines are skipped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no prompts, or a line is no prompt; the message has its number.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. Make it with `python -m porting prompts --config FILE --workdir"
            " DIR`, which writes DIR/prompts/prompts.jsonl, or write one prompt per line."
        )
    parse = _parse_json if path.suffix == ".jsonl" else str.strip
    prompts = []
    try:
        lines = path.read_text("utf-8").split("\n")  # splitlines() would also split at U+2028
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}).") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            prompt = parse(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if len(prompt) > MAX_LENGTH:
            raise ValueError(
                f"{path}, line {number}: the prompt has {len(prompt):,} characters, at most"
                f" {MAX_LENGTH:,} are taken: {prompt[:60]!r}..."
            )
        prompts.append(prompt)
    if not prompts:
        raise ValueError(f"{path} holds no prompts; it needs one per line.")
    return prompts


def _parse_json(line: str) -> str:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error}): {line[:60]!r}") from error
    prompt = content.get("prompt") if isinstance(content, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f'"prompt" is no text: {line[:60]!r}; a line is {{"prompt": "a photo"}}.')
    return prompt.strip()
