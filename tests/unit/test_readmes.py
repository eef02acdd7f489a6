"""Every README: its blocks run and pass the linter, its links and paths lead somewhere."""

import contextlib
import functools
import importlib
import importlib.util
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from flax import nnx
from PIL import Image
from readme_blocks import (
    FOLDERS,
    READMES,
    ROOT,
    all_blocks,
    appended,
    in_debug_mode,
    python_commands,
    read_blocks,
)

import clouds_jax
from clouds_jax.nn.rngs import HostKeys
from clouds_jax.nn.sam.registry import get_sam
from clouds_jax.streets import render
from clouds_jax.weights import save_weights

BLOCKS = all_blocks()
PYTHON = [block for block in BLOCKS if block.language == "python"]
BASH = [block for block in BLOCKS if block.language == "bash"]
FRONT = READMES[0]
SUBCOMMANDS = ("porting", "clouds_jax.visualise")  # programs whose first argument is one
DATA_LINKS = ("http://", "https://", "mailto:")


def name_of(readme):
    return str(readme.relative_to(ROOT))


def ruff(folder, *arguments, text=""):
    """What ruff says, run in a folder; "" if nothing."""
    command = [sys.executable, "-m", "ruff", *arguments]
    done = subprocess.run(command, input=text, cwd=folder, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def lint(text):
    """What ruff says of a block that is a file of its own."""
    return ruff(ROOT, "check", "--output-format=concise", "-", text=text) + style(text)


def style(text):
    return ruff(ROOT, "format", "--diff", "-", text=text)


@pytest.fixture(scope="module")
def changed_copy(tmp_path_factory):
    """`changed_copy(readme)`: a copy of the repository with what its README creates and appends."""

    @functools.cache
    def of(readme):
        changes = [block for block in PYTHON if block.readme == readme and block.mark]
        if not changes:
            return ROOT
        copy = tmp_path_factory.mktemp("copy")
        shutil.copy(ROOT / "pyproject.toml", copy)
        for name in FOLDERS:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for block in changes:
            path, append = copy / block.path, block.mark == "append"
            assert path.exists() == append, f"{block}: {block.path}"
            path.write_text(appended(path.read_text(), block.text) if append else block.text)
        for path in (block.path for block in changes if block.mark == "append"):
            assert not ruff(copy, "check", "--select=I", "--fix", path)  # imports in their order
            assert not ruff(copy, "format", path)
        return copy

    return of


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_python_block_passes_the_linter(block, changed_copy):
    wrong = style(block.text) if block.mark else lint(block.text)
    if block.mark:
        copy = changed_copy(block.readme)
        wrong += ruff(copy, "check", "--output-format=concise", block.path)
    assert not wrong, f"{block}:\n{wrong}"


@pytest.mark.parametrize("block", BASH, ids=str)
def test_a_bash_block_can_be_parsed(block):
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
    assert done.returncode == 0, f"{block}: {done.stderr}"


@functools.cache
def help_of(module, subcommand):
    """What `python -m module [subcommand] --help` prints."""
    arguments = [*filter(None, [subcommand]), "--help"]
    spec = importlib.util.find_spec(module)
    if spec.submodule_search_locations:
        spec = importlib.util.find_spec(f"{module}.__main__")
    if "absl" in pathlib.Path(spec.origin).read_text():  # whose flags are global
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert "flags:" in done.stdout, done.stderr
        return done.stdout
    program = importlib.import_module(spec.name)
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as end:
        program.main(arguments)
    assert not end.value.code, out.getvalue()
    return out.getvalue()


def unknown_options(module, arguments):
    """Options of a command that its program or its config does not have."""
    subcommand = arguments[0] if module in SUBCOMMANDS else ""
    text = help_of(module, subcommand)
    options = [a.partition("=")[0] for a in arguments if a.startswith("--")]
    settings = [option for option in options if option.startswith("--config.")]
    wrong = [
        option
        for option in set(options) - set(settings)
        if not re.search(rf"--(\[no\])?{re.escape(option[2:])}\b", text)
    ]
    if settings:
        config = config_of(arguments)
        wrong += [option for option in settings if not has_key(config, option.split(".")[1:])]
    return wrong


def config_of(arguments):
    """The config that a command names."""
    path = " ".join(arguments).replace("--config=", "--config ").split("--config ")[1].split()[0]
    path, _, mode = path.partition(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return module.get_config(*filter(None, [mode]))


def has_key(config, path):
    for key in path:
        if key not in config:
            return False
        config = config[key]
    return True


@pytest.mark.parametrize("block", [b for b in BASH if b.mark == "--help"], ids=str)
def test_the_programs_of_a_block_know_its_options(block, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    commands = list(python_commands(block.text))
    assert commands, f"{block} is marked --help and has no command python -m ..."
    for module, arguments in commands:
        wrong = unknown_options(module, arguments)
        assert not wrong, f"{block}: python -m {module} has no {', '.join(wrong)}"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder as the READMEs assume it: a small model and SAM, images, the configs."""
    folder = tmp_path_factory.mktemp("workplace")
    model = clouds_jax.build(
        "convnext_debug", dim=16, num_heads=2, pixel_layers=1, decoder_layers=3
    )
    model.save(folder / "demo_out/run")
    sam = nnx.to_pure_dict(nnx.state(get_sam("sam_debug").build(HostKeys(0))))
    save_weights(folder / "weights/mobile_sam", {"sam": sam}, {"target": {"sam": "sam_debug"}})
    street, _ = render("oldtown-day", seed=0, index=0, size=(64, 96))
    for path in (folder / "street.jpg", folder / "photos/street.jpg"):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(street).save(path)
    for name in ("configs", "experiments"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.parametrize("block", [b for b in BASH if b.mark in ("", "debug")], ids=str)
def test_a_bash_block_runs(block, workplace, changed_copy):
    text = in_debug_mode(block.text) if block.mark == "debug" else block.text
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=workplace, capture_output=True, text=True,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(changed_copy(block.readme))},
    )  # fmt: skip
    assert done.returncode == 0, f"{block}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("block", [b for b in PYTHON if not b.mark], ids=str)
def test_a_python_block_runs(block, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})


def slug(heading):
    """The anchor that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower())
    return kept.replace(" ", "-")


def prose(readme):
    """A README without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", readme.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(readme):
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(readme), re.MULTILINE)}


@pytest.mark.parametrize("readme", READMES, ids=name_of)
def test_links_and_pictures_lead_somewhere(readme):
    text = prose(readme)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if target.startswith(DATA_LINKS):
            continue
        path, _, anchor = target.partition("#")
        file = readme.parent / path if path else readme
        assert file.exists(), f"{name_of(readme)}: {target} does not exist"
        if anchor:
            assert anchor in anchors(file), f"{name_of(readme)}: {target} has no such heading"


@pytest.mark.parametrize("readme", READMES, ids=name_of)
def test_files_that_a_readme_names_exist(readme):
    folders = "|".join(FOLDERS)
    spans = re.findall(rf"`((?:{folders})/[\w./]+)", readme.read_text("utf-8"))
    created = {block.path for block in PYTHON if block.readme == readme}
    wrong = {span for span in spans if not (ROOT / span).exists() and span not in created}
    assert not wrong, f"{name_of(readme)} names {sorted(wrong)}, which do not exist"


def test_the_front_page_is_short_and_shows_a_picture_first():
    lines = FRONT.read_text("utf-8").splitlines()
    assert len(lines) <= 180
    assert any(re.search(r"!\[|<img ", line) for line in lines[:24])


def test_cells_of_the_front_page_are_short():
    rows = [line for line in FRONT.read_text("utf-8").splitlines() if line.startswith("|")]
    cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")]
    assert rows and max(map(len, cells)) <= 80, max(cells, key=len)


# The tests above find what is broken.


def test_an_unknown_mark_is_refused():
    text = "<!-- test: sometimes -->\n```bash\ntrue\n```\n"
    with pytest.raises(ValueError, match="'sometimes'; bash has: --help, debug, syntax"):
        read_blocks(FRONT, text)


@pytest.mark.parametrize("command", ["bash tests/run.sh", "pip install torch"])
def test_a_block_that_no_test_may_run_needs_a_mark(command):
    with pytest.raises(ValueError, match="mark it as syntax or --help"):
        read_blocks(FRONT, f"```bash\n{command}\n```\n")


def test_a_misspelt_option_or_key_is_found(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    text = "A=1 python -m clouds_jax.train --config configs/warmup_gta.py \\\n --workdri=a"
    ((module, arguments),) = python_commands(f"{text} --config.optimiser.lr=1 # not so")
    assert unknown_options(module, arguments) == ["--workdri", "--config.optimiser.lr"]


def test_a_long_line_and_a_missing_name_are_found():
    assert "E501" in lint(f'text = "{"long " * 20}"\n')
    assert "F821" in lint("print(street)\n")


def test_configs_run_in_debug_mode_once():
    text = "train --config configs/a.py --workdir b\nrun --config=configs/c.py:debug\n"
    assert in_debug_mode(text).split()[2] == "configs/a.py:debug"
    assert in_debug_mode(text).endswith("--config=configs/c.py:debug\n")
