"""Pictures: colours, edges, legends, panels, figures, and the program."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from clouds_jax import images, visualise
from clouds_jax.constants import IGNORE
from clouds_jax.data.classes import SPACES
from clouds_jax.visual import labels, plots

SPACE = SPACES["cityscapes19"]
CAMVID = SPACES["camvid11"]
CLOSE = dict(rtol=1e-9, atol=1e-9)


def scene(h=45, w=61):
    """An image of noise and a label of three classes and some ignored pixels."""
    rng = np.random.default_rng(0)
    label = np.full((h, w), 10, np.uint8)
    label[h // 2 :] = 0
    label[h // 3 : h - 4, 5:14] = 11
    label[-3:] = IGNORE
    return rng.integers(0, 256, (h, w, 3), dtype=np.uint8), label


def test_colours_are_those_of_the_space_and_ignored_is_black():
    label = np.asarray([[0, 18], [IGNORE, 30]], np.uint8)
    out = labels.colourise(label, SPACE)
    assert out.tolist() == [[[128, 64, 128], [119, 11, 32]], [[0, 0, 0], [0, 0, 0]]]


def test_boundaries_mark_one_side_of_an_edge():
    label = np.asarray([[0, 0, 1], [0, 0, 1], [2, 2, 2]], np.uint8)
    want = [[False, True, False], [True, True, True], [False, False, False]]
    assert labels.boundaries(label).tolist() == want


def test_overlay_mixes_colour_and_image_and_keeps_ignored_pixels():
    image, label = scene()
    out = labels.overlay(image, label, SPACE, alpha=0.5)
    want = np.round(0.5 * image[2, 3] + 0.5 * np.asarray(SPACE.colours[10]))
    np.testing.assert_array_equal(out[2, 3], want)
    np.testing.assert_array_equal(out[-1], image[-1])


def test_error_map_is_red_where_the_prediction_is_wrong_and_nowhere_else():
    image, label = scene()
    predicted = np.where(label == 11, 10, label).astype(np.uint8)
    predicted[-1] = 3  # ignored pixels cannot be wrong
    out = labels.error_map(image, label, predicted).astype(int)
    red = out[..., 0] - out[..., 1] > 60
    np.testing.assert_array_equal(red, label == 11)


@pytest.mark.parametrize("width", [90, 300, 1800])
def test_legend_has_the_asked_width_and_every_colour(width):
    out = labels.legend([0, 6, 7, 18, IGNORE], SPACE, width)
    assert out.shape[1] == width
    found = {tuple(c) for c in out.reshape(-1, 3).tolist()}
    assert {SPACE.colours[c] for c in (0, 6, 7, 18)} <= found


def test_with_legend_names_only_the_classes_that_are_there():
    image, label = scene(h=200, w=640)
    out = labels.with_legend(image, label, SPACE)
    assert out.shape[1] == 640 and out.shape[0] > 200
    np.testing.assert_array_equal(out[:200], image)
    strip = {tuple(c) for c in out[200:].reshape(-1, 3).tolist()}
    assert SPACE.colours[11] in strip and SPACE.colours[13] not in strip


def test_a_long_name_is_shortened_in_its_middle():
    face = labels.font(14)
    short = labels.shorten("frankfurt_000000_000294_leftImg8bit", 120, face)
    assert face.getlength(short) <= 120
    assert short.startswith("fr") and short.endswith("it") and "…" in short


def test_panels_hold_pictures_of_different_sizes():
    rows = [
        [scene(h, w)[0], labels.colourise(scene(h, w)[1], SPACE)] for h, w in ((45, 61), (90, 40))
    ]
    foot = labels.legend([0], SPACE, labels.panels_width(2, 100))
    out = labels.panels(rows, titles=["a", "b"], captions=["first", "second"], foot=foot, width=100)
    assert out.shape[1] == labels.panels_width(2, 100)
    assert out.shape[0] > round(45 * 100 / 61) + round(90 * 100 / 40) + foot.shape[0]


def test_smoothing_keeps_a_straight_line_between_its_ends():
    line = [float(i) for i in range(50)]
    np.testing.assert_allclose(plots.smooth(line, 7)[5:-5], line[5:-5], **CLOSE)
    np.testing.assert_allclose(plots.smooth([3.0, 3.0], 9), [3, 3], **CLOSE)


def write_run(folder, rows):
    folder.mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_a_resumed_run_is_read_once_and_a_torn_line_not_at_all(tmp_path):
    run = write_run(tmp_path / "a", [{"step": s, "loss": float(s)} for s in (1, 2, 3, 2, 3)])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert plots.read_series(run) == {"loss": ([1, 2, 3], [1.0, 2.0, 3.0])}


def test_the_program_draws_the_curves_of_two_runs(tmp_path, capsys):
    rows = [{"step": s, "loss": 9.0 / s} for s in range(1, 9)]
    rows += [{"step": s, "eval/camvid/test/miou": s / 20} for s in (4, 8)]
    runs = [str(write_run(tmp_path / name / "run", rows)) for name in "ab"]
    out = tmp_path / "deep" / "curves.png"
    visualise.main(["curves", *runs, "--output", str(out)])
    with Image.open(out) as picture:
        assert picture.width > 1000
    assert [p.name for p in out.parent.iterdir()] == ["curves.png"]


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        (["/r/rows/warmup/seed0", "/r/rows/joint/seed0"], ["warmup", "joint"]),
        (["/r/a/seed0", "/r/a/seed1"], ["seed0", "seed1"]),
        (["/r/a", "/r/a/b"], ["a", "a/b"]),
        (["/r/x/a/1", "/r/y/b/1"], ["x/a", "y/b"]),
        (["/r/a"], ["a"]),
    ],
)
def test_runs_are_named_by_what_tells_them_apart(runs, names):
    assert plots.run_names([pathlib.Path(run) for run in runs]) == names


def test_runs_without_scores_have_no_empty_panel(tmp_path):
    runs = [write_run(tmp_path / name, [{"step": 1, "loss": 2.0}]) for name in "ab"]
    figure = plots.curves(runs)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_a_run_without_metrics_is_one_clear_error(tmp_path):
    with pytest.raises(SystemExit, match="metrics.jsonl does not exist; name run directories"):
        visualise.main(["curves", str(tmp_path), "--output", str(tmp_path / "x.png")])


def test_the_confusion_figure_leaves_out_rows_that_no_label_shows(tmp_path):
    matrix = np.diag([5, 0, 7])
    figure = plots.confusion_matrix(matrix, "abc", ["a", "b", "c"], title="three")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a", "c"]
    plots.save(figure, tmp_path / "m.png")
    assert (tmp_path / "m.png").stat().st_size > 1000


def test_a_matrix_without_labels_can_be_drawn(tmp_path):
    figure = plots.confusion_matrix(np.zeros((2, 2), int), "ab", "ab")
    plots.save(figure, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").exists()


def overlay_files(folder, image, label):
    images.write_png(folder / "image.png", image)
    images.write_png(folder / "label.png", label)
    return ["overlay", str(folder / "image.png"), str(folder / "label.png")]


def test_the_program_draws_an_overlay(tmp_path):
    image, label = scene()
    out = tmp_path / "out.png"
    visualise.main([*overlay_files(tmp_path, image, label), "--output", str(out)])
    drawn = images.read_image(out)
    want = labels.with_legend(labels.overlay(image, label, SPACE), label, SPACE)
    np.testing.assert_array_equal(drawn, want)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda label: label[1:], r"is 45x61 pixels \(h x w\), .*label.png 44x61"),
        (lambda label: np.where(label == 11, 26, label), r"has ids \[26\]; cityscapes19 has 0..18"),
        (lambda label: labels.colourise(label, SPACE), "has mode RGB; a label map has one"),
    ],
)
def test_a_wrong_label_is_one_clear_error(tmp_path, spoil, message):
    image, label = scene()
    command = overlay_files(tmp_path, image, spoil(label).astype(np.uint8))
    with pytest.raises(SystemExit, match=message):
        visualise.main([*command, "--output", str(tmp_path / "out.png")])
    assert not (tmp_path / "out.png").exists()
