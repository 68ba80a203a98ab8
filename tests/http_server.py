"""An HTTP server on the loopback that serves one file, well or badly."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What a server sends, and what it was asked.

    Attributes:
        content: the file.
        etag: its version; empty for a server that names none.
        ranges: whether parts of the file can be had.
        length: whether the server says how long the file is.
        cuts: after how many bytes it breaks off its first answers; None for a whole one.
        statuses: answers of no content, by status, before any other.
        content_range: what it says of a part of the file, about its byte {first}, if it does not say the truth.
        requests: headers of the requests so far.
    """

    content: bytes
    etag: str = '"one"'
    ranges: bool = True
    length: bool = True
    cuts: list[int | None] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    content_range: str | None = None
    requests: list[Message] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(served: Served) -> Iterator[str]:
    """Serve a file as long as the block lasts; the address is the block's, and ``served.url``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.requests.append(self.headers)
            if served.statuses:
                self.send_response(served.statuses.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            first = self.first_byte()
            body = served.content[first:]
            if first and not body:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(served.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if first else 200)
            if served.etag:
                self.send_header("ETag", served.etag)
            if first:
                truth = f"bytes {first}-{len(served.content) - 1}/{len(served.content)}"
                told = truth if served.content_range is None else served.content_range.format(first=first)
                self.send_header("Content-Range", told)
            if served.length:
                self.send_header("Content-Length", str(len(body)))
            else:
                self.send_header("Connection", "close")
            self.end_headers()
            cut = served.cuts.pop(0) if served.cuts else None
            self.wfile.write(body if cut is None else body[:cut])
            self.close_connection = cut is not None or not served.length

        def first_byte(self) -> int:
            wanted = self.headers.get("Range")
            if wanted is None or not served.ranges or self.headers.get("If-Range", served.etag) != served.etag:
                return 0
            return int(wanted.removeprefix("bytes=").removesuffix("-"))

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    served.url = f"http://127.0.0.1:{server.server_port}/archive.zip"
    try:
        yield served.url
    finally:
        server.shutdown()
        server.server_close()
