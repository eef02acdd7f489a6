"""Who may import whom, read from the syntax trees."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
ROOMS = {
    "clouds_jax": {"clouds_jax"},
    "porting": {"porting", "clouds_jax"},
    "configs": {"configs"},
    # which compares and chains both sides, but sees PyTorch through porting only
    "experiments": {"experiments", "clouds_jax", "porting"},
}
TORCH = {
    "torch",
    "torchvision",
    "timm",
    "open_clip",
    "transformers",
    "segment_anything",
    "diffusers",
}
TORCH |= {"efficientnet_lite_pytorch"}
# Part of clouds_jax -> parts that it must not know.
MUST_NOT = {
    "ops": {"nn", "data", "losses", "train", "train_step", "checkpoint", "parts"},
    "typing": {"ops", "nn", "data", "losses", "train", "train_step", "checkpoint", "parts"},
    "nn": {"data", "losses", "train", "train_step", "checkpoint", "parts"},
    "losses": {"nn", "data", "train", "train_step", "checkpoint", "parts"},
    "data": {"nn", "losses", "train", "train_step", "checkpoint", "parts"},
    "train_step": {"data", "checkpoint", "parts", "train"},
}


def files(folder):
    found = sorted((ROOT / folder).rglob("*.py"))
    if (ROOT / f"{folder}.py").exists():
        found.append(ROOT / f"{folder}.py")
    assert found, f"{folder} holds no Python files"
    return found


def modules(path):
    """Full names of all that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def packages(path):
    return {name.split(".")[0] for name in modules(path)}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room):
    for path in files(room):
        found = packages(path)
        wrong = found & (set(ROOMS) - ROOMS[room])
        if room != "porting":
            wrong |= found & TORCH
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}; {room} may not"


@pytest.mark.parametrize("part", MUST_NOT)
def test_the_parts_of_the_library_know_only_what_lies_below_them(part):
    for path in files(f"clouds_jax/{part}"):
        inside = {name.split(".")[1] for name in modules(path) if name.startswith("clouds_jax.")}
        wrong = inside & MUST_NOT[part]
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)} of clouds_jax"


def test_only_programs_read_config_dicts():
    allowed = {"train.py", "evaluate.py", "predict.py", "parts.py", "restore.py"}
    for path in files("clouds_jax"):
        if "ml_collections" in packages(path):
            assert path.name in allowed, f"{path.relative_to(ROOT)} reads ConfigDicts"


def test_orbax_is_imported_in_one_place():
    found = [p for p in files("clouds_jax") if "orbax" in packages(p)]
    assert [p.name for p in found] == ["checkpoint.py"]


@pytest.mark.parametrize("part", ["data/records.py", "data/classes.py", "data/datasets"])
def test_what_the_offline_stages_use_does_not_import_jax(part):
    for path in (
        files(f"clouds_jax/{part}") if not part.endswith(".py") else [ROOT / "clouds_jax" / part]
    ):
        wrong = packages(path) & {"jax", "flax"}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_configs_import_nothing_but_ml_collections():
    for path in files("configs"):
        assert packages(path) <= {"configs", "ml_collections"}, path.name
