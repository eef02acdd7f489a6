"""The tokenizer: known ids, marks, cutting, cleaning, and where its vocabulary is."""

import importlib.metadata
import subprocess
import sys

import numpy as np
import pytest

from clouds_jax.text import tokenizer

START, END = 49_406, 49_407


@pytest.fixture(scope="module")
def tokenize():
    try:
        return tokenizer.Tokenizer()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_a_sentence_has_the_ids_that_clip_was_trained_with(tokenize):
    (ids,) = tokenize(["a photo of a road."])
    assert ids.shape == (77,)
    assert ids[:8].tolist() == [START, 320, 1125, 539, 320, 1759, 269, END]
    assert not ids[8:].any()


def test_nothing_is_two_marks(tokenize):
    for text in ("", "   ", "\n\t"):
        assert tokenize([text])[0, :3].tolist() == [START, END, 0]
    assert tokenize([]).shape == (0, 77)


def test_long_texts_are_cut_and_keep_the_end_mark(tokenize):
    long, exact, short = tokenize([" road" * n for n in (80, 75, 74)])
    assert long.tolist() == exact.tolist() == [START, *[1759] * 75, END]
    assert short.tolist() == [START, *[1759] * 74, END, 0]


@pytest.mark.parametrize(
    "text, same",
    [
        ("A  PHOTO\tof\na Road.", "a photo of a road."),
        ("&lt;road&gt; &amp;amp; sky", "<road> & sky"),  # also when escaped twice
        ("cafÃ© au lait", "café au lait"),  # read in the wrong encoding once
        ("ﬁre", "fire"),
        ("“road”", '"road"'),
    ],
)
def test_texts_are_cleaned_first(tokenize, text, same):
    assert tokenize.encode(text) == tokenize.encode(same)


def test_words_end_at_contractions_digits_and_signs(tokenize):
    def joined(*parts):
        return [i for part in parts for i in tokenize.encode(part)]

    assert tokenize.encode("it's 42 km/h") == joined("it", "'s", "4", "2", "km", "/", "h")
    assert tokenize.encode("road2road") == joined("road", "2", "road")


def test_marks_inside_a_text_are_marks(tokenize):
    assert tokenize.encode("<start_of_text>road<end_of_text>") == [START, 1759, END]


def test_every_byte_has_an_id(tokenize):
    letters = [chr(i) for i in range(0x20, 0x800)] + ["日本", "👩‍👩‍👧", "𝒳"]
    ids = np.concatenate([tokenize.encode(letter) for letter in letters])
    assert ids.min() >= 0 and ids.max() < START


def test_a_vocabulary_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="merges.gz: no such vocabulary"):
        tokenizer.find_vocabulary(tmp_path / "merges.gz")


def test_without_open_clip_the_error_says_what_to_do(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(FileNotFoundError, match="install open_clip_torch.*--vocabulary"):
        tokenizer.find_vocabulary()


def test_another_file_is_refused(tmp_path):
    import gzip

    file = tmp_path / "merges.gz"
    file.write_bytes(gzip.compress(b"# version\na b\nc d\n"))
    with pytest.raises(ValueError, match="does not hold CLIP's 48,894 merges"):
        tokenizer.Tokenizer(file)


def test_tokenizing_imports_no_torch(tokenize, root):
    code = (
        "import sys; from clouds_jax.text import tokenizer; tokenizer.Tokenizer()(['a road']);"
        "wrong = {'torch', 'open_clip'} & set(sys.modules); assert not wrong, wrong"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
