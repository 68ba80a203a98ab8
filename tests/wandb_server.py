"""A stand-in for the W&B server on loopback, which the real client talks to.

Nothing here knows audio-lrp: what the client sends is kept in a :class:`~wandb_backend.Backend`, and requests that
the stand-in does not understand are kept in :attr:`WandbServer.unknown` and refused.
"""

import base64
import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from wandb_backend import Backend, ServerRun

API_KEY = "0123456789" * 4


class WandbServer(Backend):
    """The server; a context manager.

    Attributes:
        url: its address, the same after a restart.
        unknown: requests that it could not answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self.unknown: list[str] = []
        self._http: ThreadingHTTPServer | None = None
        self._port = 0

    def __enter__(self) -> "WandbServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to listen, after the first time at the same port."""
        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), type("Bound", (_Requests,), {"backend": self}))
        self._http.daemon_threads = True
        self._port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self._port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on; what was received stays."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def only_run(self) -> ServerRun:
        """The only run that the server knows."""
        (run,) = self.runs.values()
        return run

    def use(self, monkeypatch: pytest.MonkeyPatch, key: str = API_KEY) -> None:
        """Send the client here."""
        monkeypatch.setenv("WANDB_BASE_URL", self.url)
        monkeypatch.setenv("WANDB_API_KEY", key)

    def receive(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and answer of one request; bytes are a file's content, anything else is sent as JSON."""
        if path == "/graphql":
            return self._graphql(json.loads(body))
        if match := re.fullmatch(r"/files/(.+)/(.+)/(.+)/file_stream", path):
            self.runs[match[3]].stream(json.loads(body))
            return 200, {"exitcode": None, "limits": {}, "stopped": self.runs[match[3]].stopped}
        if path.startswith("/storage/"):
            return self._stored(method, unquote(path.removeprefix("/storage/")), body)
        if path.startswith(("/sdk/otel/", "/api/")):  # the client's telemetry
            return 200, {}
        self.unknown.append(f"{method} {path}")
        return 404, {}

    def _graphql(self, request: dict[str, Any]) -> tuple[int, Any]:
        match = re.search(r"\b(?:query|mutation)\s+(\w+)", request["query"])
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", match[1]).lower() if match else ""
        answer = getattr(self, f"answer_{name}", None)
        if answer is None:
            self.unknown.append(f"{request['query']} {request.get('variables')}")
            return 400, {"errors": [{"message": f"unknown operation {name}"}]}
        try:
            return 200, {"data": answer(request.get("variables") or {})}
        except (KeyError, TypeError) as error:  # a client of another version, with other variables
            self.unknown.append(f"{request['query']} {request.get('variables')} {error!r}")
            return 400, {"errors": [{"message": f"{name}: {error!r}"}]}

    def _stored(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if method != "PUT":
            return (200, self.storage[path]) if path in self.storage else (404, {})
        self.storage[path] = body
        folder, _, rest = path.partition("/")
        name, _, file = rest.partition("/")
        if folder == "runs":
            self.runs[name].files[file] = body
        return 200, {}


class _Requests(BaseHTTPRequestHandler):
    backend: WandbServer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        path = urlsplit(self.path).path
        wanted = "Basic " + base64.b64encode(f"api:{API_KEY}".encode()).decode()
        if path.startswith(("/graphql", "/files/")) and self.headers.get("Authorization") != wanted:
            status, answer = 401, {"errors": [{"message": "user is not logged in"}]}
        else:
            with self.backend.lock:
                status, answer = self.backend.receive(self.command, path, body)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _answer  # noqa: N815 (names that http.server looks for)

    def log_message(self, *_: Any) -> None:
        """Be silent."""
