"""Downloads of models: what is verified, and that no part of a file is left behind."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from video_knet_core import model_download
from video_knet_core.engine import model_index as indexed
from video_knet_core.engine.base import ModelError
from video_knet_core.engine.model_index import IndexedFile, IndexedModel, ModelIndex
from video_knet_core.model_download import DownloadError, get_model

CONTENT = bytes(range(256)) * 4000
INDEX = ModelIndex(
    release="v9",
    models=(
        IndexedModel(
            name="mine",
            summary="",
            use="research only",
            terms="",
            card="models/mine.md",
            files=tuple(
                IndexedFile(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
                for name, data in (("mine.onnx", CONTENT), ("mine.safetensors", CONTENT[:999]))
            ),
        ),
    ),
)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder with the files of the release, which is where they are downloaded from."""
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "mine.onnx").write_bytes(CONTENT)
    (folder / "mine.safetensors").write_bytes(CONTENT[:999])
    for module in (model_download, indexed):
        monkeypatch.setattr(module, "model_index", lambda: INDEX)
    monkeypatch.setenv("VIDEO_KNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIDEO_KNET_MODELS_URL", f"file://{folder}/")
    return folder


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_model_is_downloaded_once_into_the_folder_of_its_release(server, tmp_path):
    previous = os.umask(0)
    try:
        path = get_model("mine")
    finally:
        os.umask(previous)
    assert path == tmp_path / "cache/models/v9/mine.onnx" and path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o644
    folders = path.parents[:3]
    assert folders[-1] == tmp_path / "cache"
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o755}
    (server / "mine.onnx").unlink()
    assert get_model("mine") == path
    assert get_model("mine", checkpoint=True).name == "mine.safetensors"


def test_a_file_of_the_package_or_the_user_is_taken_if_it_is_the_same(
    server, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("VIDEO_KNET_MODELS", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    own = tmp_path / "mine/mine.onnx"
    own.write_bytes(CONTENT[:-1] + b"x")
    assert get_model("mine") != own
    assert f"the name mine stands for another file: delete {own}" in caplog.text
    own.write_bytes(CONTENT)
    assert get_model("mine") == own


def test_a_file_that_cannot_be_read_is_not_here(server, tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    path = get_model("mine")
    path.write_bytes(CONTENT[::-1])
    monkeypatch.setattr(model_download, "sha256_of", closed)
    assert get_model("mine") == path and path.read_bytes() == CONTENT


def test_the_name_of_a_file_is_no_name_of_a_model(server):
    with pytest.raises(ModelError, match="models get mine` downloads"):
        get_model("mine.onnx")


def test_a_damaged_file_in_the_cache_is_replaced(server):
    path = get_model("mine")
    path.write_bytes(CONTENT[:5])
    assert get_model("mine") == path and path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (CONTENT[:-1] + b"x", "expected SHA-256 .*, got "),
        (CONTENT[:-1], f"expected {len(CONTENT)} bytes, got {len(CONTENT) - 1};"),
        (CONTENT + b"x", f"expected {len(CONTENT)} bytes, got .* or more"),
        (b"", "got 0"),
        (None, "No such file"),
    ],
)
def test_another_file_than_expected_is_not_stored(server, tmp_path, content, expected):
    (server / "mine.onnx").unlink()
    if content is not None:
        (server / "mine.onnx").write_bytes(content)
    with pytest.raises(DownloadError, match=expected):
        get_model("mine")
    assert not files_in(tmp_path / "cache")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x", "http://no-such-host.invalid", "/srv", "gopher://x", "http://["]
)
def test_no_network_and_no_address_are_one_error(server, tmp_path, monkeypatch, url):
    monkeypatch.setenv("VIDEO_KNET_MODELS_URL", url)
    with pytest.raises(DownloadError, match="VIDEO_KNET_MODELS"):
        get_model("mine")
    assert not files_in(tmp_path / "cache")


@pytest.mark.parametrize(("status", "sent"), [(404, b""), (200, CONTENT[:1000])])
def test_what_a_server_answers_wrongly(server, tmp_path, monkeypatch, status, sent):
    """404, and a connection that ends in the middle."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        monkeypatch.setenv("VIDEO_KNET_MODELS_URL", f"http://127.0.0.1:{http.server_port}")
        with pytest.raises(
            DownloadError, match="404" if status == 404 else "got 1000|IncompleteRead"
        ):
            get_model("mine")
        http.shutdown()
    assert not files_in(tmp_path / "cache")


def test_a_full_disk_leaves_nothing(tmp_path):
    """A limit of the size of files stands for it; it would end with this process."""
    code = "from video_knet_core.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    base = f"file://{model_download.__file__.rpartition('/video_knet_core')[0]}/models"
    variables = {"VIDEO_KNET_CACHE": str(tmp_path), "VIDEO_KNET_MODELS_URL": base}
    lost = "import video_knet_core.engine.model_index as i; i.shared_folders = lambda: []; "
    done = subprocess.run(
        [sys.executable, "-c", lost + code, "models", "get", "street_open"],
        **{"env": os.environ | variables, "capture_output": True, "text": True},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
    )
    assert done.returncode == 2 and done.stdout == ""
    assert str(tmp_path) in done.stderr and "VIDEO_KNET_CACHE" in done.stderr
    assert "Traceback" not in done.stderr and not files_in(tmp_path)


def test_an_unknown_name_lists_the_names(server):
    with pytest.raises(ModelError, match="one of mine; did you mean mine"):
        get_model("mime")
