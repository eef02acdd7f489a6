"""The prompts stage without a language model: what is read, parsed, chosen, written and refused."""

import json

import numpy as np
import pytest

from clouds_jax.data.part import Part
from clouds_jax.stages.shard_set import StageError
from porting.__main__ import main
from porting.stages.prompts import grammar, instructions
from porting.stages.prompts import stage as prompts
from porting.stages.prompts.grammar import CLASSES, Sentence, find_classes, parse
from porting.stages.prompts.prompt_file import read_prompts
from porting.stages.prompts.selection import Selection
from porting.stages.prompts.settings import Settings

IDENTITY = {"model": "fake", "gguf": "", "revision": "sha256:0"}
DEFAULTS = {
    "seed": 0, "model": "fake", "revision": "", "gguf": "", "dtype": "float32",
    "mode": "few_shot", "form": "strict", "count": 30, "min_per_class": 1, "batch": 8,
    "max_texts": 400, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 64,
}  # fmt: skip


class Fake:
    """Goes on with random words, a third of which are none that pass."""

    def __init__(self, stop_after=None):
        self.calls, self._stop_after = 0, stop_after

    def sample(self, prompts, *, chat, one_line, seed, **_):
        if self.calls == self._stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        rng = np.random.default_rng(seed)
        beside = ("a lorry", "two houses", "a hedge", "a quiet street", "some people")
        light = ("soft morning light", "light rain", "thick fog", "a box", "clear weather")

        def phrase():
            return f" beside {rng.choice(beside)} in {rng.choice(light)}"

        if not chat:
            return [phrase() for _ in prompts]
        return [
            "Sure:\n" + "".join(f"{i}. A photo of a bus{phrase()}.\n" for i in range(9))
            for _ in prompts
        ]

    def memory(self):
        return {}


def make(folder, model=None, **changes):
    model = model or Fake()
    settings = Settings(**{**DEFAULTS, **changes})
    return prompts.PromptsStage(settings, folder, identity=IDENTITY, load=lambda: model)


def outputs(folder):
    return [(folder / name).read_bytes() for name in ("prompts.jsonl", "report.json")]


# prompt files


def test_prompts_are_read_from_our_file_and_from_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a photo", "classes": []}\n\n{"prompt": "b"}\n')
    (tmp_path / "a.txt").write_text("a photo\n\n  b \n")
    assert (
        read_prompts(tmp_path / "a.jsonl") == read_prompts(tmp_path / "a.txt") == ["a photo", "b"]
    )


@pytest.mark.parametrize(
    "name, text, told",
    [
        ("a.txt", None, "python -m porting prompts"),
        ("a.txt", "\n \n", "holds no prompts"),
        ("a.jsonl", '{"prompt": "a"}\na photo\n', "line 2: no JSON"),
        ("a.jsonl", '{"text": "a"}\n', 'line 1: "prompt" is no text'),
        ("a.txt", "a\n" + "b" * 2_001, "line 2: the prompt has 2,001 characters"),
    ],
)
def test_a_file_that_holds_no_prompts_is_refused(tmp_path, name, text, told):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, OSError), match=told):
        read_prompts(tmp_path / name)


# the parser


@pytest.mark.parametrize(
    "line, classes",
    [
        ("a photo of a car on a street in light rain", "road car"),
        ('12. "A photo of two lorries by a bush in the golden hour."', "vegetation truck"),
        ("- a photo of a traffic light, in soft light", "traffic light"),
        ("a photo of a dog by a hedge in a park in the morning", "vegetation"),
        ("a photo of a cyclist in the rain in thick fog", "rider"),
        ("a photo of buses at dusk in the light of street lamps", "bus"),
    ],
)
def test_the_template_is_taken_apart(line, classes):
    found = parse(line)
    assert isinstance(found, Sentence) and " ".join(found.classes) == classes
    assert found.text.startswith("a photo of ") and not found.text.endswith((".", '"'))


@pytest.mark.parametrize(
    "line, reason",
    [
        ("Here are 100 prompts for you:", "form"),
        ("A picture of a car on a street in light rain", "form"),
        ("a photo of a car in the…", "cut"),
        ("a photo of cars", "length"),
        ("a photo of 3 cars on a street in light rain", "characters"),
        ("a photo of a car. It is parked in light rain", "characters"),
        ("a photo of a **car** by a wall in light rain", "characters"),
        ("a photo of a car by a car by a car by a car in light rain", "loop"),
        ("a photo of a taxi on a busy taxi in light rain", "loop"),
        ("a photo of a street with cars at night", "split"),
        ("a photo of a street with cars in a small town", "light"),
        ("a photo of a tree in a park on a sunny day", "light"),
        ("a photo of a car in the street with sunny weather", "light"),
        ("a photo of a car by a wall in the soft", "light"),
        ("a photo of a car by a wall in dark sunshine", "light"),
        ("a photo of a dog with a ball in light rain", "class"),
        ("a photo of a horse on a street in light rain", "scene"),
        ("a photo of a car that has a roof in light rain", "clause"),
    ],
)
def test_every_rejection_has_a_reason(line, reason):
    assert parse(line) == reason
    assert reason in grammar.REASONS


def test_the_loose_form_takes_pictures_and_needs_no_light():
    found = parse("A snapshot of a tram passing some shops.", loose=True)
    assert found == Sentence("a snapshot of a tram passing some shops", ("building", "train"))
    assert parse("A snapshot of a dog with a ball.", loose=True) == "class"


@pytest.mark.parametrize(
    "text, classes",
    [
        ("a traffic light", ["traffic light"]),
        ("a light behind bushes", ["vegetation"]),
        ("a bus stop near the train station", ["building"]),
        ("a street light over a bike lane", ["road", "pole"]),
        ("women, children and motor-cycles", ["person"]),
        ("double-decker buses and stop signs", ["traffic sign", "bus"]),
    ],
)
def test_classes_are_whole_words_and_the_longest_name_counts(text, classes):
    assert list(find_classes(text)) == classes


def test_our_own_examples_and_openings_are_what_we_ask_for():
    for line in instructions.EXAMPLES:
        assert isinstance(parse(line), Sentence), (line, parse(line))
    assert set(CLASSES) == {name for line in instructions.EXAMPLES for name in find_classes(line)}
    for name, openings in instructions.OPENINGS.items():
        for opening in openings:
            assert name in find_classes(opening), opening


# the choice


def test_a_line_counts_once_and_an_example_never():
    chosen = Selection(3, 0, known=["a photo of a bus by a wall in fog"])
    assert chosen.add("A photo of a bus, by a wall in fog.") is None
    assert chosen.add("a photo of a car by a wall in fog")
    assert chosen.add("1) A photo of a car by a wall in fog.") is None
    assert chosen.rejects == {"duplicate": 2}


def test_places_are_kept_for_missing_classes():
    chosen = Selection(19, 1)
    assert chosen.add("a photo of a red car next to a bus in fog")  # two of 19: a place is free
    assert chosen.add("a photo of a blue car next to something in fog")
    assert not chosen.add("a photo of a green car next to something in fog")
    assert chosen.rejects == {"surplus": 1} and len(chosen.missing()) == 17
    for name in chosen.missing():
        word = "lawn" if name == "terrain" else name
        assert chosen.add(f"a photo of a {word} next to something in fog")
    assert chosen.complete and not chosen.missing()


def test_no_class_alone_fills_more_than_a_quarter():
    chosen = Selection(8, 0)
    colours = ("red", "blue", "green", "black")
    taken = [chosen.add(f"a photo of a {colour} car by night in fog") for colour in colours]
    assert [bool(one) for one in taken] == [True, True, False, False]
    assert chosen.add("a photo of a red car by a wall in fog")


# the stage


def test_the_stage_writes_prompts_that_say_where_they_come_from(tmp_path):
    found = make(tmp_path).run(progress=False)
    rows = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert len(rows) == 30 and len({row["prompt"] for row in rows}) == 30
    assert {name for row in rows for name in row["classes"]} == set(CLASSES)
    assert list(rows[0]) == sorted(rows[0])
    for row in rows:
        assert parse(row["raw"]) == Sentence(row["prompt"], tuple(row["classes"]))
        chunk = json.loads((tmp_path / "raw" / f"{row['chunk']:05d}.json").read_text())
        assert chunk["texts"][row["index"]] == row["raw"]
    assert read_prompts(tmp_path / "prompts.jsonl") == [row["prompt"] for row in rows]
    report = json.loads((tmp_path / "report.json").read_text())
    refused = sum(one["count"] for one in report["rejects"].values())
    assert report["lines"] == report["accepted"] + refused and report["accepted"] == 30
    assert "light" in report["rejects"] and not report["missing"]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(line["texts"] for line in log) == found.sampled == report["texts"]


def test_a_list_of_a_chat_model_is_taken_apart(tmp_path):
    stage = make(tmp_path, mode="instruction", count=6, min_per_class=0, batch=2)
    stage.run(progress=False)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rejects"]["form"]["example"] == "Sure:"
    assert all(
        prompt.startswith("a photo of a bus ")
        for prompt in read_prompts(tmp_path / "prompts.jsonl")
    )


def test_a_run_that_was_stopped_ends_with_the_same_bytes(tmp_path):
    whole = Fake()
    make(tmp_path / "whole", whole).run(progress=False)
    assert whole.calls > 3
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut", Fake(stop_after=2)).run(progress=False)
    rest = Fake()
    make(tmp_path / "cut", rest).run(progress=False)
    assert rest.calls == whole.calls - 2
    assert outputs(tmp_path / "cut") == outputs(tmp_path / "whole")
    again = Fake()
    make(tmp_path / "cut", again).run(progress=False)
    assert not again.calls


def test_parts_end_with_the_same_bytes(tmp_path):
    make(tmp_path / "whole").run(progress=False)
    for index in range(2):
        make(tmp_path / "parts").run(Part(index, 2), progress=False)
    make(tmp_path / "parts").run(progress=False)
    assert outputs(tmp_path / "parts") == outputs(tmp_path / "whole")


def test_a_part_that_finds_the_prompts_complete_writes_them(tmp_path):
    make(tmp_path).run(progress=False)
    before = outputs(tmp_path)
    (tmp_path / "prompts.jsonl").unlink()
    model = Fake()
    assert make(tmp_path, model).run(Part(1, 2), progress=False).complete
    assert outputs(tmp_path) == before and not model.calls


def test_other_parameters_in_the_same_folder_are_refused(tmp_path):
    make(tmp_path, Fake(stop_after=0), temperature=0.5)  # no text yet: binds nobody
    make(tmp_path, max_texts=300).run(progress=False)
    make(tmp_path, max_texts=500).run(progress=False)
    with pytest.raises(StageError, match=r"parameters.count 30, now 29; parameters.top_p 0.9, now"):
        make(tmp_path, count=29, top_p=0.8)


def test_too_few_texts_end_with_what_is_amiss_and_more_can_follow(tmp_path):
    with pytest.raises(StageError) as caught:
        make(tmp_path, max_texts=16).run(progress=False)
    told = str(caught.value)
    assert "16 texts were sampled" in told and "of 30 prompts pass" in told
    assert "light" in told and "still missing: " in told
    assert "Raise config.prompts.max_texts" in told
    make(tmp_path).run(progress=False)
    make(tmp_path / "whole").run(progress=False)
    assert outputs(tmp_path) == outputs(tmp_path / "whole")


def test_a_damaged_chunk_is_named(tmp_path):
    make(tmp_path).run(progress=False)
    (tmp_path / "raw" / "00001.json").write_text("{")
    with pytest.raises(StageError, match=r"00001\.json is damaged"):
        make(tmp_path).run(progress=False)


@pytest.mark.parametrize(
    "key, value, told",
    [
        ("mode", "chat", "one of: instruction, few_shot"),
        ("form", "free", "one of: strict, loose"),
        ("dtype", "int8", "one of: bfloat16"),
        ("temperature", 0.0, "temperature is 0.0; it must be > 0"),
        ("top_p", 1.5, r"in \(0, 1\]"),
        ("count", 0, "count is 0; it must be >= 1"),
        ("min_per_class", 31, "from 0 to config.prompts.count, 30"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(key, value, told):
    with pytest.raises(ValueError, match=told):
        Settings(**{**DEFAULTS, key: value})


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize(
    "flags, told",
    [
        (["--config.prompts.mode=chat"], "config.prompts.mode is 'chat'"),
        (["--config.prompts.model=./nowhere"], "'./nowhere' is no folder"),
        (["--config.prompts.model=package:nowhere"], "no package 'nowhere' is installed"),
        (["--shard=3/2", "--config.prompts.model=."], "--shard is '3/2'"),
        (["--config.prompts.modle=x"], "modle"),
    ],
)
def test_the_command_tells_what_is_wrong(tmp_path, capsys, flags, told):
    pytest.importorskip("torch")
    args = ["prompts", "--config", "configs/stages/base.py", "--workdir", str(tmp_path), *flags]
    assert main(args) == 1
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
