"""A small hub on this machine: enough of its HTTP interface to read data sets and models."""

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Repository:
    """One dataset or model on the hub."""

    files: dict[str, bytes]
    gated: bool = False

    @property
    def commit(self) -> str:
        """The only commit; it follows from the content."""
        digest = hashlib.sha1()
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()


@dataclass
class Hub:
    """The hub's datasets and models by id, and what was asked of it."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    token: str = "let-me-in"
    bytes_sent: dict[str, int] = field(default_factory=dict)
    address: str = ""


@contextmanager
def running_hub():
    """Serve an empty hub on a free port for as long as the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer any question."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(unquote(self.path))
        parts = url.path.strip("/").split("/")
        if parts[:1] == ["api"] and parts[1:2] in (["datasets"], ["models"]):
            self._about("/".join(parts[2:4]), parts[4:], body.decode())
        elif parts[0] == "datasets" and parts[3:4] == ["resolve"]:
            self._file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._refuse(404, "EntryNotFound")

    do_HEAD = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def _about(self, name: str, rest: list[str], body: str) -> None:
        repository = self._repository(name, rest[1] if len(rest) > 1 else "main")
        if repository is None:
            return
        match rest[:1]:
            case [] | ["revision"]:
                siblings = [{"rfilename": file} for file in repository.files]
                gated = "auto" if repository.gated else False
                about = {"id": name, "sha": repository.commit, "siblings": siblings}
                self._json(about | {"gated": gated, "private": False, "tags": []})
            case ["tree"]:
                folder = "".join(part + "/" for part in rest[2:])
                self._json([e for e in _entries(repository) if _lies_in(e["path"], folder)])
            case ["paths-info"]:
                try:
                    wanted = json.loads(body)["paths"]
                except ValueError:
                    wanted = parse_qs(body)["paths"]
                self._json([f for f in _entries(repository) if f["path"] in wanted])
            case _:
                self._refuse(404, "EntryNotFound")

    def _file(self, name: str, revision: str, file: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        given = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repository.gated and not given:
            self._refuse(401, "GatedRepo", f"Access to dataset {name} is restricted.")
        elif file not in repository.files:
            self._refuse(404, "EntryNotFound")
        else:
            content = repository.files[file]
            headers = {
                "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Repo-Commit": repository.commit,
                "Accept-Ranges": "bytes",
            }
            wanted = self.headers.get("Range")
            status = 200
            if wanted and content:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                end = min(int(last) + 1 if last else len(content), len(content))
                headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
                content, status = content[int(first) : end], 206
            if self.command != "HEAD":
                sent = self.hub.bytes_sent
                sent[file] = sent.get(file, 0) + len(content)
            self._send(status, content, headers)

    def _repository(self, name: str, revision: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif revision not in {"main", repository.commit}:
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
        else:
            return repository
        return None

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str = "") -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": message or code})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entries(repository: Repository) -> list[dict[str, object]]:
    folders = {
        str(folder): {"type": "directory", "path": str(folder), "size": 0, "oid": "0" * 40}
        for name in repository.files
        for folder in PurePosixPath(name).parents
        if folder.name
    }
    files = [
        {
            "type": "file",
            "path": name,
            "size": len(content),
            "oid": hashlib.sha1(content).hexdigest(),
        }
        for name, content in repository.files.items()
    ]
    return [*folders.values(), *files]


def _lies_in(path: str, folder: str) -> bool:
    return path.startswith(folder) and "/" not in path.removeprefix(folder)
