"""Who may import whom, read from the syntax trees."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TORCH = {
    "torch", "torchvision", "timm", "open_clip", "transformers", "segment_anything", "diffusers",
    "efficientnet_lite_pytorch",
}  # fmt: skip
TOP = {
    "clouds_jax": {"clouds_jax"},
    "porting": {"porting", "clouds_jax"},
    "configs": {"configs"},
    # compares and chains both sides, but sees PyTorch through porting only
    "experiments": {"experiments", "clouds_jax", "porting"},
}
PROGRAMS = {
    "train", "evaluate", "predict", "pseudo", "embed", "visualise",
    "data/build/__main__", "data/loader/__main__", "text/__main__",
}  # fmt: skip
# Modules at the top of clouds_jax that are no programs; a room may import those it names.
GROUND = {
    "typing", "constants", "files", "images", "differences", "provenance", "sharding", "runtime",
    "hosts", "command_line", "folder_lock",
}  # fmt: skip
PLAIN = GROUND - {"sharding", "runtime", "hosts"}  # these import JAX
# Room of clouds_jax -> what its files may import of clouds_jax.
ALLOWED = {name: GROUND for name in GROUND} | {
    "ops": {"typing", "constants"},
    "nn": {"ops", "typing", "constants"},
    "losses": {"ops", "typing", "constants"},
    "streets": {"constants", "typing"},
    "data": {"streets", *PLAIN},
    "weights": {"nn", *GROUND},
    "text": {"nn", "weights", "data/classes", *GROUND},
    "visual": {"data/classes", *PLAIN},
    "training": {"nn", "ops", "losses", "weights", *GROUND},
    "selftrain": {"training", "nn", "data", "visual", "ops", *GROUND},
    "evaluation": {"nn", "data", "visual", "ops", *GROUND},
}
ALLOWED["config"] = {*ALLOWED} - {"streets"}
ALLOWED["model"] = {"config", *ALLOWED["config"]}
ALLOWED["stages"] = {"model", *ALLOWED["model"]}
# Rooms of porting from the ground up: each may import those before it, and clouds_jax.
PORTING = ("files", "tables", "conversion", "reference", "parity", "benchmark", "commands")
PORTING_STAGES = {"files", "tables", "conversion", "reference", "stages", "_torchvision"}


def files(folder):
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"{folder} holds no Python files"
    return found


def imported(path):
    """Full names of all that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(path):
    return {name.split(".")[0] for name in imported(path)}


def module_of(name, top):
    """The file of a dotted name below `top`, without ending: "clouds_jax.nn.clouds.Clouds"."""
    parts = name.split(".")[1:]
    while parts:
        place = ROOT.joinpath(top, *parts)
        if place.with_suffix(".py").exists() or (place / "__init__.py").exists():
            return "/".join(parts)
        parts.pop()
    return ""


def inside(path, top):
    """The modules of `top` that one of its files imports, as paths below `top`."""
    names = {name for name in imported(path) if name.split(".")[0] == top}
    return {module_of(name, top) for name in names} - {""}


def room_of(module):
    return module.split("/")[0]


def relative(path, top):
    return path.relative_to(ROOT / top).with_suffix("").as_posix()


def node_of(module, top):
    """The room of a module; a module that has sub-rooms beside it stands for itself."""
    room = ROOT.joinpath(top, module)
    if not room.is_dir():
        room = room.parent
        if any((p / "__init__.py").exists() for p in room.iterdir()):
            return module
    return room.relative_to(ROOT / top).as_posix()


def within(module, allowed):
    parts = module.split("/")
    return any("/".join(parts[:n]) in allowed for n in range(1, len(parts) + 1))


@pytest.mark.parametrize("top", TOP)
def test_a_top_folder_imports_only_what_it_may(top):
    for path in files(top):
        wrong = packages(path) & (set(TOP) - TOP[top])
        if top != "porting":
            wrong |= packages(path) & TORCH
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}; {top} may not"


@pytest.mark.parametrize("path", files("clouds_jax"), ids=lambda p: relative(p, "clouds_jax"))
def test_a_module_imports_only_the_rooms_below_its_own(path):
    module = relative(path, "clouds_jax")
    if module in PROGRAMS | {"__init__"}:
        return
    room = room_of(module)
    assert room in ALLOWED, f"clouds_jax/{module}.py lies in no known room and is no program"
    wrong = {m for m in inside(path, "clouds_jax") if not within(m, ALLOWED[room] | {room})}
    assert not wrong, f"clouds_jax/{module}.py imports {sorted(wrong)}; {room} may not"


@pytest.mark.parametrize("path", files("porting"), ids=lambda p: relative(p, "porting"))
def test_a_module_of_porting_imports_only_the_rooms_below_its_own(path):
    module = relative(path, "porting")
    room = room_of(module)
    if room in ("__main__", "__init__", "_torchvision"):
        return
    if room == "stages":
        allowed = PORTING_STAGES
    else:
        assert room in PORTING, f"porting/{module}.py lies in no known room and is no program"
        allowed = {*PORTING[: PORTING.index(room) + 1], "_torchvision"}
        allowed |= {"stages"} if room in ("benchmark", "commands") else set()
    wrong = {m for m in inside(path, "porting") if not within(m, allowed)}
    assert not wrong, f"porting/{module}.py imports {sorted(wrong)}; {room} may not"


@pytest.mark.parametrize("top", ["clouds_jax", "porting"])
def test_there_is_no_cycle_between_rooms(top):
    arrows = {}
    for path in files(top):
        module = relative(path, top)
        if module in PROGRAMS or module.endswith(("__main__", "__init__")):
            continue
        for other in inside(path, top):
            if node_of(other, top) != node_of(module, top):
                arrows.setdefault(node_of(module, top), {})[node_of(other, top)] = module
    done, walk = set(), []

    def visit(room):
        if room in walk:
            cycle = [*walk[walk.index(room) :], room]
            steps = [f"{a} -> {b} ({arrows[a][b]})" for a, b in zip(cycle, cycle[1:], strict=False)]
            raise AssertionError("rooms import each other: " + ", ".join(steps))
        if room not in done:
            walk.append(room)
            for other in sorted(arrows.get(room, ())):
                visit(other)
            done.add(walk.pop())

    for room in sorted(arrows):
        visit(room)


@pytest.mark.parametrize("top", ["clouds_jax", "porting"])
def test_the_top_of_a_package_holds_programs_and_the_ground_floor(top):
    names = {path.stem for path in (ROOT / top).glob("*.py")}
    programs = {name for name in PROGRAMS if "/" not in name}
    known = GROUND | programs | {"__init__", "model", "weights"}
    assert names <= (known if top == "clouds_jax" else {"__init__", "__main__", "_torchvision"})


def test_config_dicts_are_read_at_the_door_only():
    for path in files("clouds_jax"):
        module = relative(path, "clouds_jax")
        if "ml_collections" in packages(path):
            assert module in PROGRAMS | {"config/experiment"}, f"{module} reads ConfigDicts"


def test_orbax_is_imported_where_arrays_are_stored():
    found = {relative(p, "clouds_jax") for p in files("clouds_jax") if "orbax" in packages(p)}
    assert found == {"training/checkpoint", "weights"}


@pytest.mark.parametrize("module", ["data/records.py", "data/classes.py", "data/datasets"])
def test_what_the_offline_stages_use_does_not_import_jax(module):
    place = ROOT / "clouds_jax" / module
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        wrong = packages(path) & {"jax", "flax"}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_configs_import_nothing_but_ml_collections():
    for path in files("configs"):
        assert packages(path) <= {"configs", "ml_collections"}, path.name


def test_importing_the_package_loads_no_library_and_no_device():
    code = (
        "import clouds_jax, sys; print(sorted({'jax', 'flax', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
