"""Downloads from the hub, with a local server that implements as much of the protocol as they need."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from commands import FUSEDBERT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def hub(make_checkpoint) -> Iterator[Any]:
    """Serve one private repository, org/tiny, at COMMIT, which the tag v1 and the branch main point to."""
    folder = make_checkpoint("bert", num_hidden_layers=2, seed=9)
    (folder / "training_args.bin").write_bytes(b"never to be downloaded")

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", headers.pop("length", str(len(body))))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            if self.headers.get("Authorization") != "Bearer secret":
                return self.answer(401, X_Error_Code="GatedRepo", X_Error_Message="Access to it is restricted")
            path = self.path.partition("?")[0]
            files = sorted(path for path in folder.iterdir())
            if match := re.fullmatch(rf"/api/models/org/tiny/(revision|tree)/(main|v1|{COMMIT})", path):
                listing = [
                    {"type": "file", "path": f.name, "rfilename": f.name, "size": f.stat().st_size, "oid": digest(f)}
                    for f in files
                ]
                described = {"id": "org/tiny", "sha": COMMIT, "private": True, "siblings": listing}
                body = json.dumps(listing if match[1] == "tree" else described).encode()
                return self.answer(200, body, Content_Type="application/json")
            match = re.fullmatch(rf"/org/tiny/resolve/(?:main|v1|{COMMIT})/(.+)", path)
            if match and (folder / match[1]).is_file():
                asked.append(match[1])
                body = (folder / match[1]).read_bytes()
                return self.answer(200, body, ETag=f'"{digest(folder / match[1])}"', X_Repo_Commit=COMMIT)
            return self.answer(404, X_Error_Code="RepoNotFound")

        do_HEAD = do_GET

        def log_message(self, format: str, *_: object) -> None:
            pass

    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:40]

    asked: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.asked = asked  # type: ignore[attr-defined]
        server.folder = folder  # type: ignore[attr-defined]
        yield server
        server.shutdown()


def run(hub: Any, home: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    host, port = hub.server_address
    settings = {"HF_ENDPOINT": f"http://{host}:{port}", "HF_HOME": str(home / "hf"), "FUSEDBERT_CACHE": str(home / "cache")}
    settings |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [*FUSEDBERT, *args],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_private_model_by_id_and_revision_then_offline(hub: Any, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    done = run(hub, tmp_path, "export", "org/tiny", str(output), "--for", "cpu", "--revision", "v1", HF_TOKEN="secret")
    assert done.returncode == 0, done.stderr
    source = json.loads((output / "fusedbert.json").read_text())["source"]
    assert (source["id"], source["revision"]) == ("org/tiny", COMMIT)
    expected = hashlib.sha256((hub.folder / "model.safetensors").read_bytes()).hexdigest()
    assert source["sha256"] == {"model.safetensors": expected}
    assert "model.safetensors" in hub.asked and "training_args.bin" not in hub.asked
    offline = run(
        hub, tmp_path, "export", "org/tiny", str(tmp_path / "again"), "--for", "cpu", "--revision", "v1", HF_HUB_OFFLINE="1"
    )
    assert offline.returncode == 0, offline.stderr
    assert (tmp_path / "again/onnx/model.onnx").read_bytes() == (output / "onnx/model.onnx").read_bytes()


def test_the_engine_exports_a_hub_id_on_first_use(hub: Any, tmp_path: Path) -> None:
    done = run(hub, tmp_path, "classify", "a good movie", "-m", "org/tiny", "--format", "jsonl", HF_TOKEN="secret")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["scores"]) == {"LABEL_0", "LABEL_1"}
    (manifest,) = (tmp_path / "cache").rglob("fusedbert.json")
    assert json.loads(manifest.read_text())["source"]["id"] == "org/tiny"


@pytest.mark.parametrize(
    ("model", "token", "revision"),
    [("org/tiny", "wrong", "main"), ("org/absent", "secret", "main"), ("org/tiny", "secret", "v2")],
)
def test_errors_of_the_hub_are_one_line(hub: Any, tmp_path: Path, model: str, token: str, revision: str) -> None:
    done = run(hub, tmp_path, "export", model, str(tmp_path / "artifact"), "--revision", revision, HF_TOKEN=token)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("fusedbert: error:")]
    assert model in line and "Traceback" not in done.stderr and token not in done.stderr
    assert not (tmp_path / "artifact").exists()
