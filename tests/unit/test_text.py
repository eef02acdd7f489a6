"""Class names, sentences, the class matrix, its file and its program."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.data.classes import SPACES, get_space
from clouds_jax.nn import clip_text as nn_text
from clouds_jax.nn.rngs import HostKeys
from clouds_jax.text import __main__ as program
from clouds_jax.text import class_matrix, class_names
from clouds_jax.text.tokenizer import Tokenizer
from clouds_jax.weights import load_weights, save_weights

SMALL = nn_text.TextSize(width=16, layers=2, embedding=6)
ATOL = 1e-6
FLOAT = dict(rtol=1e-5, atol=1e-5)


class Lengths:
    """A tokenizer whose ids tell the length of the text: one id per letter, then the largest."""

    context = 77

    def __call__(self, texts):
        ids = np.zeros((len(texts), self.context), np.int32)
        for row, one in zip(ids, texts, strict=True):
            row[: len(one) + 1] = [*map(ord, one), 9999]
        return ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights with a small text tower, as a conversion leaves them."""
    path = tmp_path_factory.mktemp("weights") / "clip"
    tower = nn_text.TextTower(SMALL, rngs=HostKeys(0))
    tree = {"text": nnx.to_pure_dict(nnx.state(tower))}
    save_weights(path, tree, {"target": {"text": {"quick_gelu": False}}})
    return path


def test_cityscapes_has_sixty_names():
    names = class_names.class_names(get_space("cityscapes19"))
    assert [len(synonyms) for synonyms in names] == [
        2, 2, 6, 6, 2, 2, 2, 2, 5, 10, 2, 1, 1, 2, 2, 2, 5, 2, 4
    ]  # fmt: skip
    assert names[2][4:] == ("house", "ceiling") and names[16][-1] == "freight train"
    # a class is found under its own name, too
    pairs = zip(SPACES["cityscapes19"].names, names, strict=True)
    assert all(name in synonyms for name, synonyms in pairs)
    rows = class_names.class_of_row(names)
    assert len(rows) == 60 and rows[:5] == (0, 0, 1, 1, 2) and rows[-1] == 18


def test_other_spaces_have_their_classes_names():
    assert class_names.class_names(get_space("camvid11"))[0] == ("sky",)
    with pytest.raises(KeyError, match="SPACES has no 'ade'"):
        class_names.class_names(get_space("ade"))


def test_there_are_fourteen_sentences():
    sentences = [template.format("road") for template in class_names.TEMPLATES]
    assert len(set(sentences)) == 14
    assert sentences[:5] == [
        "a photo of a road.",
        "This is a photo of a road",
        "There is a road in the scene",
        "There is the road in the scene",
        "a photo of a road in the scene",
    ]
    assert sentences[7] == "a photo of a large road."
    assert sentences[9] == "This is a photo of a medium road."
    assert sentences[11] == "There is a small road in the scene."


def test_a_class_was_seen_if_it_shares_a_name():
    trained = (("road", "railroad"), ("sky",))
    assert class_names.seen_classes(
        (("railroad",), ("sea", "water"), ("sky", "clouds")), trained
    ) == (
        True,
        False,
        True,
    )


def test_a_row_is_the_normed_mean_of_normed_embeddings():
    def encode(ids):
        lengths = ids.argmax(-1).astype(np.float32)
        return np.stack([lengths, lengths**2, np.ones_like(lengths)], -1)

    names = (("a", "bcd"), ("ef",), tuple("x" * n for n in range(1, 20)))
    templates = ("{}", "the {}", "{} in the scene")
    matrix, rows = class_matrix.class_embeddings(encode, Lengths(), names, templates=templates)
    assert rows.tolist() == [0, 0, 1, *[2] * 19]
    assert matrix.shape == (22, 3)
    for row, name in ((0, "a"), (2, "ef"), (21, "x" * 19)):
        found = []
        for template in templates:
            n = len(template.format(name))
            found.append(np.array([n, n**2, 1.0]) / np.sqrt(n**2 + n**4 + 1))
        mean = np.mean(found, 0)
        np.testing.assert_allclose(matrix[row], mean / np.linalg.norm(mean), atol=ATOL)


def test_the_tower_is_called_with_one_shape_no_longer_than_needed():
    shapes = []

    def encode(ids):
        shapes.append(ids.shape)
        return np.ones((len(ids), 2), np.float32)

    names = tuple((f"{i:02d}",) for i in range(19))
    class_matrix.class_embeddings(encode, Lengths(), names, templates=("{}", "a {}"))
    assert shapes == [(16, 5)] * 3


def test_what_follows_the_end_mark_changes_nothing():
    size = dataclasses.replace(SMALL, vocabulary=50)
    graphdef, state = nnx.split(nn_text.TextTower(size, rngs=HostKeys(1)))
    tower = jax.jit(lambda state, ids: nnx.merge(graphdef, state)(ids))
    ids = np.zeros((2, 9), np.int32)
    ids[0, :4] = 48, 32, 11, 49
    ids[1, :6] = 48, 1, 2, 3, 4, 49
    other = ids.copy()
    other[0, 4:], other[1, 6:] = 17, 9
    whole = tower(state, ids)
    np.testing.assert_allclose(tower(state, ids[:, :6]), whole, **FLOAT)
    np.testing.assert_allclose(tower(state, other), whole, **FLOAT)
    assert not np.allclose(whole[0], whole[1])


@pytest.mark.parametrize(
    "name, count",
    [
        ("convnext_large_d_320", 152_001_793),
        ("clip_resnet50", 63_690_241),
        ("clip_resnet101", 63_428_097),
    ],
)
def test_the_towers_have_the_number_of_weights_of_the_original(name, count):
    size = nn_text.SIZES[name]
    state = nnx.state(nnx.eval_shape(lambda: nn_text.TextTower(size, rngs=nnx.Rngs(0))))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == count
    assert nn_text.size_of(nnx.to_pure_dict(state), quick_gelu=size.quick_gelu) == size


def test_the_class_matrix_is_made_once_and_found_again(folder, capsys):
    arguments = ["--weights", str(folder), "--space", "camvid11"]
    program.main(arguments)
    said = capsys.readouterr().out
    assert said.startswith("written: ")
    program.main(arguments)
    assert capsys.readouterr().out == said.replace("written", "already there")
    found = class_matrix.load_class_matrix(folder, get_space("camvid11"))
    assert found.matrix.shape == (11, 6) and found.class_of_row.tolist() == list(range(11))
    np.testing.assert_allclose(np.linalg.norm(found.matrix, axis=-1), 1, atol=ATOL)
    assert found.logit_scale == pytest.approx(np.log(1 / 0.07))
    # the last sentence of the last name, by hand
    tower = nn_text.TextTower(SMALL, rngs=HostKeys(0))
    ids = Tokenizer()([template.format("bicyclist") for template in class_names.TEMPLATES])
    rows = np.asarray(tower(jnp.asarray(ids)))
    mean = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).mean(0)
    np.testing.assert_allclose(found.matrix[-1], mean / np.linalg.norm(mean), **FLOAT)


def test_a_class_matrix_of_other_names_is_not_taken(folder, monkeypatch):
    program.main(["--weights", str(folder), "--space", "categories7"])
    monkeypatch.setitem(class_names._SYNONYMS, "categories7", (("flat",),) * 7)
    with pytest.raises(FileNotFoundError, match="is of other names or sentences.*clouds_jax.text"):
        class_matrix.load_class_matrix(folder, get_space("categories7"))


def test_a_missing_class_matrix_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        class_matrix.load_class_matrix(tmp_path, get_space("cityscapes19"))
    command = f"python -m clouds_jax.text --weights {tmp_path} --space cityscapes19"
    assert command in str(error.value)


def test_class_matrices_of_two_towers_are_refused(folder, tmp_path):
    for quick_gelu in (False, True):
        class_matrix.make_class_matrix(folder, "camvid11", output=tmp_path, quick_gelu=quick_gelu)
    with pytest.raises(ValueError, match="2 class matrices of camvid11.*delete all but one"):
        class_matrix.load_class_matrix(tmp_path, get_space("camvid11"))


def test_a_folder_without_a_text_tower_says_how_to_get_one(tmp_path):
    save_weights(tmp_path / "w", {"encoder": {"x": np.ones(2)}}, {})
    with pytest.raises(SystemExit, match="convert open_clip_text FILE"):
        program.main(["--weights", str(tmp_path / "w"), "--space", "camvid11"])


def test_an_unknown_activation_is_asked_for(folder, tmp_path):
    tree, _ = load_weights(folder)
    save_weights(tmp_path / "w", tree, {})
    with pytest.raises(ValueError, match="which activation.*--activation"):
        class_matrix.load_tower(tmp_path / "w")
    quick, size, _ = class_matrix.load_tower(tmp_path / "w", quick_gelu=True)
    exact, _, _ = class_matrix.load_tower(folder)
    ids = np.array([[49406, 320, 49407]], np.int32)
    assert size.quick_gelu and np.abs(quick(ids) - exact(ids)).max() > ATOL


def test_the_file_says_what_it_is_of(folder):
    program.main(["--weights", str(folder), "--space", "camvid11"])
    (path,) = folder.glob("class_embeddings-camvid11-*.npz")
    with np.load(path) as file:
        said = json.loads(str(file["description"]))
    assert said["space"] == "camvid11" and said["names"][0] == ["sky"]
    assert len(said["templates"]) == 14 and len(said["text_sha256"]) == 64
