"""The fenced blocks of the READMEs and the commands in them.

A block is run as it stands, unless an HTML comment on the line before it says otherwise:

    <!-- test: --help -->        its commands are not run; the programs must know their options
    <!-- test: debug -->         every --config is run in its debug mode
    <!-- test: syntax -->        bash only: parsed, not run (installations, what takes minutes)
    <!-- test: create FILE -->   python only: FILE of a copy of the repository is this block
    <!-- test: append FILE -->   python only: FILE of the copy gets it; its imports go to the others

Blocks without a comment run in that copy where the README has `create` or `append`.
"""

import ast
import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ("clouds_jax", "configs", "experiments", "porting", "tests")
READMES = [
    ROOT / "README.md",
    *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("README.md")),
]
MARKS = {
    "bash": ("", "--help", "debug", "syntax"),
    "python": ("", "create", "append"),
}
# Programs that would run this test, or that change the machine: never run as they stand.
NEVER = re.compile(r"\bpip install|\bgit clone|\bwget |demo\.sh|tests/run\.sh|\.ci/run|\bpytest\b")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- test: (\S+)(?: (\S+))? -->")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        readme: its file.
        line: of the fence, from 1.
        language: "python" or "bash".
        mark: what the comment before it says; "": run it.
        path: file that the mark names.
        text: between the fences.
    """

    readme: pathlib.Path
    line: int
    language: str
    mark: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.readme.relative_to(ROOT)}:{self.line}"


def read_blocks(readme: pathlib.Path, text: str) -> list[Block]:
    """The python and bash blocks of a README.

    Raises:
        ValueError: a mark is unknown, or a block without one does what a test may not.
    """
    blocks = []
    for fence in _FENCE.finditer(text):
        language, body = fence.groups()
        if language not in MARKS:
            continue
        before = text[: fence.start()].splitlines()
        found = _MARK.fullmatch(before[-1]) if before else None
        mark, path = found.groups(default="") if found else ("", "")
        block = Block(readme, len(before) + 1, language, mark, path, body)
        if mark not in MARKS[language]:
            allowed = ", ".join(filter(None, MARKS[language]))
            raise ValueError(f"{block}: the mark is {mark!r}; {language} has: {allowed}.")
        if mark in ("", "debug") and language == "bash" and NEVER.search(body):
            raise ValueError(f"{block}: not to be run by a test; mark it as syntax or --help.")
        blocks.append(block)
    return blocks


def all_blocks() -> list[Block]:
    """The blocks of all READMEs."""
    return [block for readme in READMES for block in read_blocks(readme, readme.read_text("utf-8"))]


def python_commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands `python -m module ...` of a bash block: (module, arguments)."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            command, words = words[:end], words[end + 1 :]
            while command and re.match(r"\w+=", command[0]):
                command.pop(0)
            if command[:2] == ["python", "-m"]:
                yield command[2], command[3:]


def in_debug_mode(text: str) -> str:
    """A bash block with every config in its debug mode."""
    return re.sub(r"(--config[= ]\S+\.py)(?=\s)", r"\1:debug", text)


def appended(source: str, block: str) -> str:
    """A module with a block at its end, whose imports stand behind those of the module."""
    tree, added = ast.parse(source), ast.parse(block)

    def end_of_imports(module: ast.Module) -> int:
        kinds = (ast.Import, ast.ImportFrom)
        return max(node.end_lineno or 0 for node in module.body if isinstance(node, kinds))

    lines, new = source.splitlines(), block.splitlines()
    at, end = end_of_imports(tree), end_of_imports(added)
    return "\n".join([*lines[:at], *new[:end], *lines[at:], *new[end:]]) + "\n"
