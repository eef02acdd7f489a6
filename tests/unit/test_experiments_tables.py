"""Tables and figures: every row can be run as written, and what is shown is what was found."""

import importlib
import json

import pytest

from clouds_jax.config.experiment import read_experiment

TABLES = ("table_gta", "table_synthia", "table_acdc", "table_ablation", "table_camvid",
          "table_streets", "table_trainable", "figure_overview", "figure_images",
          "figure_refinement")  # fmt: skip


@pytest.fixture
def load(root, monkeypatch):
    monkeypatch.syspath_prepend(root)
    return lambda name: importlib.import_module(f"experiments.{name}")


def rows(tables, table):
    return {title: row for title, row in table.rows.items() if isinstance(row, tables.Row)}


def test_all_tables_are_listed_here(root):
    found = [*(root / "experiments").glob("table_*.py"), *(root / "experiments").glob("figure_*")]
    assert {path.stem for path in found} == {*TABLES}


@pytest.mark.parametrize("name", TABLES)
def test_the_config_of_every_row_has_its_keys_and_passes_the_checks(load, name):
    tables, table = load("tables"), load(name).TABLE
    for row in rows(tables, table).values():
        path, _, mode = row.config.partition(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        config = module.get_config(mode)
        with config.ignore_type():
            config.update_from_flattened_dict(dict(row.set))
        read_experiment(config).padding(2)
        assert {ref for refs in table.columns.values() for ref in refs} <= {*row.datasets}


@pytest.mark.parametrize("name", TABLES)
def test_one_name_stands_for_one_run(load, name):
    """Rows that share a name share a run, so they must be the same, here and in all tables."""
    tables, known = load("tables"), {}
    for other in TABLES:
        for row in rows(tables, load(other).TABLE).values():
            what = row.config, dict(row.set), row.start and row.start.name
            assert known.setdefault(row.name, what) == what, row.name
    assert {row.name for row in rows(tables, load(name).TABLE).values()} <= known.keys()


def test_published_averages_are_those_of_the_published_figures(load):
    tables = load("tables")
    for name in ("table_gta", "table_synthia"):
        for title, row in load(name).TABLE.rows.items():
            parts_of = [row.published.get(c) for c in ("Cityscapes", "BDD100K", "Mapillary")]
            if None in parts_of:
                continue
            # rounded from figures with more digits than those that are told
            assert abs(sum(parts_of) / 3 - row.published["average"]) < 0.11, title
    assert isinstance(load("table_gta").TABLE.rows["PTDiffSeg"], tables.Quoted)


def test_a_cell_is_the_mean_of_seeds_and_datasets(load, tmp_path):
    tables = load("tables")
    table = tables.Table(
        "Two.", {"both": ("a/val", "b/val"), "a": ("a/val",)},
        {"ours": tables.Row("ours", "x.py", ("a/val", "b/val"), "native", seeds=(0, 1)),
         "other": tables.Row("other", "x.py", ("a/val", "b/val"), "native"),
         "theirs": tables.Quoted({"a": 12.3}, "a book")},
    )  # fmt: skip
    for seed, (a, b) in enumerate([(0.2, 0.4), (0.4, 0.6)]):
        path = tables.result_path(tmp_path, "two", "ours", seed)
        path.parent.mkdir(exist_ok=True)
        results = {"a/val": {"miou": a}, "b/val": {"miou": b}}
        path.write_text(json.dumps({"results": results, "minutes": 2, "hardware": "a machine"}))
    text = tables.render("two", table, tmp_path).splitlines()
    assert (
        "| ours | 40.00 ± 14.14 | 30.00 ± 14.14 | - / - | 2.0 min, 2 of 2 seeds | a machine |"
        in text
    )
    assert "| other | not run | not run | - / - | not run | not run |" in text
    assert "| theirs | quoted | quoted | - / 12.3 | - | - |" in text
    assert "- a book" in text
