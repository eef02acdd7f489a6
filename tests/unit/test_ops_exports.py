"""What `clouds_jax.ops` offers: functions by name, loaded when first used."""

import importlib
import pathlib
import subprocess
import sys

import pytest

from clouds_jax import ops

MODULES = {path.stem for path in pathlib.Path(ops.__file__).parent.glob("*.py")}


@pytest.mark.parametrize("name", ops.__all__)
def test_an_exported_function_stays_itself_after_its_module_is_imported(name):
    assert name not in MODULES
    assert name in dir(ops)
    function = getattr(ops, name)
    importlib.import_module(f"clouds_jax.ops.{ops._HOMES[name]}")
    assert callable(function) and getattr(ops, name) is function
    assert function.__doc__, f"{name} has no docstring"


def test_modules_can_still_be_imported_from_the_package():
    from clouds_jax.ops import masks

    assert masks.pool_masks is ops.pool_masks


def test_an_unknown_name_is_refused_with_the_list_of_names():
    with pytest.raises(AttributeError, match="has no 'deform'; it has: assign, attend, "):
        _ = ops.deform


def test_importing_the_package_loads_no_library():
    code = "import clouds_jax.ops, sys; print(sorted({'jax', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
