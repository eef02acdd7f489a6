"""TorchScript archives are read as state dicts, and their programs are never opened."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from porting.files.open import open_checkpoint
from porting.files.pickle_names import UnsafePickleError

torch = pytest.importorskip("torch")


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.scale = torch.nn.Parameter(torch.tensor(2.5))
        self.width = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) * self.scale


class Model(torch.nn.Module):
    """Named so that order matters: an attribute after a module, modules in modules."""

    def __init__(self):
        super().__init__()
        self.visual = torch.nn.Sequential(Block(), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
        self.zeros = torch.nn.Parameter(torch.zeros(2, 3).T)
        self.register_buffer("mask", torch.ones(2, dtype=torch.bool))
        self.table = torch.nn.Embedding(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.visual(x).sum() + self.table.weight.sum() + self.zeros.sum() + self.mask.sum()


def assert_reads_as_its_state_dict(path, module):
    found, provenance = open_checkpoint(path)
    assert provenance.format == "torchscript"
    expected = module.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.numpy().dtype, name
        np.testing.assert_array_equal(found[name], tensor.numpy())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("half", [False, True])
def test_scripted_modules_are_read_as_their_state_dict(tmp_path, half):
    model = Model().half() if half else Model()
    torch.jit.script(model).save(str(tmp_path / "a.pt"))
    assert_reads_as_its_state_dict(tmp_path / "a.pt", model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_traced_modules_are_read_as_their_state_dict(tmp_path):
    model = Model().eval()
    torch.jit.trace(model, torch.zeros(1, 3, 8, 8)).save(str(tmp_path / "a.pt"))
    assert_reads_as_its_state_dict(tmp_path / "a.pt", model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_program_of_an_archive_is_never_opened(tmp_path):
    torch.jit.script(Model()).save(str(tmp_path / "a.pt"))
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as whole,
        zipfile.ZipFile(tmp_path / "b.pt", "w") as changed,
    ):
        for info in whole.infolist():
            data = whole.read(info)
            if "/code/" in info.filename:
                data = b"import os\nos.abort()\n"  # no program at all; torch would refuse it
            changed.writestr(info.filename, data)
    found, _ = open_checkpoint(tmp_path / "b.pt")
    assert list(found) == list(Model().state_dict())


class Attack:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def archive(path, content):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", pickle.dumps(content, 2))
        file.writestr("a/constants.pkl", pickle.dumps((), 2))
        file.writestr("a/code/__torch__.py", "class Model(Module):\n  pass\n")


def test_an_archive_that_asks_for_more_than_tensors_is_named_and_not_run(tmp_path):
    witness = tmp_path / "witness"
    archive(tmp_path / "a.pt", {"x": Attack(os.mkdir, str(witness))})
    with pytest.raises(UnsafePickleError, match=r"asks for (posix|nt)\.mkdir.*nothing of it was"):
        open_checkpoint(tmp_path / "a.pt")
    assert not witness.exists()


def test_a_state_dict_may_not_use_the_names_of_an_archive(tmp_path):
    script = b"\x80\x02c__torch__.model\nModel\n)\x81}b."
    (tmp_path / "a.pkl").write_bytes(script)
    with pytest.raises(UnsafePickleError, match=r"asks for __torch__\.model\.Model"):
        open_checkpoint(tmp_path / "a.pkl")


def test_calls_inside_calls_are_named_by_the_first_that_is_not_allowed(tmp_path):
    inner = Attack(os.system, "true")
    nested = Attack(torch._utils._rebuild_parameter, inner, False, {})
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": {"a": nested}}))
    with pytest.raises(UnsafePickleError, match=r"asks for (posix|nt)\.system"):
        open_checkpoint(tmp_path / "a.pkl")


def test_an_archive_of_a_module_that_holds_itself_has_an_end(tmp_path):
    loop = b"\x80\x02c__torch__.model\nModel\n)\x81q\x00}X\x04\x00\x00\x00selfh\x00sb."
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("a/data.pkl", loop)
        file.writestr("a/constants.pkl", pickle.dumps((), 2))
    with pytest.raises(ValueError, match="deep in each other"):
        open_checkpoint(tmp_path / "a.pt")
