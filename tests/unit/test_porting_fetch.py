"""Files are found by path, package, URL and Hugging Face name."""

import functools
import http.server
import sys
import threading

import numpy as np
import porting_files
import pytest

from porting.__main__ import main
from porting.files import locate, public_checkpoints
from porting.files.open import open_checkpoint
from porting.tables import TABLES


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of a folder, and a cache of its own; also stands for Hugging Face's."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{httpd.server_port}"
    monkeypatch.setenv("CLOUDS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", address)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    yield folder, address
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_url_is_fetched_once_and_named_in_the_provenance(server):
    folder, address = server
    porting_files.save(folder / "a.safetensors", {"x": np.ones(3, np.float32)})
    url = f"{address}/a.safetensors"
    state, provenance = open_checkpoint(url)
    assert list(state) == ["x"] and provenance.url == url
    (folder / "a.safetensors").unlink()
    assert list(open_checkpoint(url)[0]) == ["x"]  # from the cache


def test_a_missing_page_and_no_network_are_told_apart(server, capsys):
    _, address = server
    assert main(["inspect", f"{address}/none.pth"]) == 1
    assert "none.pth: 404" in capsys.readouterr().err
    assert main(["inspect", "http://127.0.0.1:1/a.pth"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
    assert main(["inspect", "hf://org/name/a.pth"]) == 1
    assert "404" in capsys.readouterr().err


def test_a_file_with_another_hash_is_not_kept(server, tmp_path):
    folder, address = server
    (folder / "a.bin").write_bytes(b"other")
    with pytest.raises(OSError, match="not 0123: do not use it"):
        locate.download(f"{address}/a.bin", sha256="0123")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_repository_is_searched_for_its_weights(server):
    folder, _ = server
    inside = folder / "org" / "name" / "resolve" / "main"
    inside.mkdir(parents=True)
    porting_files.save(inside / "open_clip_model.safetensors", porting_files.clip_state())
    state, provenance = open_checkpoint("hf://org/name")
    assert len(state) == 66 and provenance.url == "hf://org/name"
    assert open_checkpoint("hf://org/name/open_clip_model.safetensors")[0].keys() == state.keys()
    with pytest.raises(FileNotFoundError, match="404"):
        open_checkpoint("hf://org/name/open_clip_model.safetensors@v2")
    with pytest.raises(FileNotFoundError, match="has none of: model.safetensors"):
        open_checkpoint("hf://org/other")
    with pytest.raises(ValueError, match="is no repository"):
        open_checkpoint("hf://org")


def test_the_parts_of_a_sharded_repository_are_fetched_together(server):
    import json

    folder, _ = server
    inside = folder / "org" / "name" / "resolve" / "main"
    inside.mkdir(parents=True)
    porting_files.save(inside / "model-1.safetensors", {"a": np.ones(2, np.float32)})
    porting_files.save(inside / "model-2.safetensors", {"b": np.ones(3, np.float32)})
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (inside / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(open_checkpoint("hf://org/name")[0]) == {"a", "b"}


def test_known_checkpoints_are_of_known_families_and_encoders(capsys):
    from clouds_jax.nn.encoders.registry import ENCODERS
    from clouds_jax.nn.sam.registry import SAMS

    for one in public_checkpoints.PUBLIC_CHECKPOINTS:
        assert one.family in TABLES, one
        assert one.encoder is None or one.encoder in ENCODERS or one.encoder in SAMS, one
        assert all(c in "0123456789abcdef" for c in one.sha256)
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name}\n" in f"\n{out}" for name in TABLES)
    assert all(one.name in out for one in public_checkpoints.PUBLIC_CHECKPOINTS)
    assert "size not known" in out
    assert main(["list", "clouds"]) == 0
    assert "open_clip_convnext\n" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["", *"list inspect plan convert invert roundtrip".split()])
def test_every_command_has_help_with_examples(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"] if command else ["--help"])
    assert done.value.code == 0
    assert "examples:\n  python -m porting" in capsys.readouterr().out
