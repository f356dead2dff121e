"""A local server of byte ranges: nginx where it is installed, otherwise a small one in Python."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import trustme

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_START_SECONDS = 10.0


class Served(NamedTuple):
    """Where a file is served.

    Attributes:
        address: Of the file.
        ca_file: To trust; empty for plain HTTP.
        kind: Of the server.
    """

    address: str
    ca_file: str
    kind: str


@contextmanager
def serving(file: Path, work: Path, *, tls: bool) -> Iterator[Served]:
    """Serve one file until the block ends."""
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    ca_file = _certificates(work) if tls else ""
    port = _free_port()
    nginx = shutil.which("nginx")
    command = (
        _nginx_command(nginx, file, work, port, tls=tls)
        if nginx
        else [sys.executable, "-m", "benchmarks.server", str(file), str(port)]
        + ([str(work / "server.pem")] if tls else [])
    )
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _wait_for(port, process)
        scheme = "https" if tls else "http"
        kind = "nginx" if nginx else "Python"
        yield Served(f"{scheme}://localhost:{port}/account/disks/{file.name}", ca_file, kind)
    finally:
        process.terminate()
        process.communicate()


def _certificates(work: Path) -> str:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(work / "ca.pem"))
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(work / "server.pem"))
    os.chmod(work / "server.pem", 0o600)
    return str(work / "ca.pem")


def _nginx_command(nginx: str, file: Path, work: Path, port: int, *, tls: bool) -> list[str]:
    certificate = work / "server.pem"
    secure = f"ssl_certificate {certificate}; ssl_certificate_key {certificate};" if tls else ""
    configuration = f"""
        worker_processes 2; daemon off; pid {work}/nginx.pid; error_log stderr;
        {"user root;" if os.geteuid() == 0 else ""}
        events {{ worker_connections 64; }}
        http {{
            access_log off; sendfile on; keepalive_requests 1000000; default_type
            application/octet-stream; client_body_temp_path {work}/t1; proxy_temp_path {work}/t2;
            fastcgi_temp_path {work}/t3; uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5;
            server {{
                listen 127.0.0.1:{port} {"ssl" if tls else ""}; {secure}
                location /account/disks/ {{ alias {file.parent.resolve()}/; }}
            }}
        }}"""
    path = work / "nginx.conf"
    path.write_text(configuration)
    return [nginx, "-c", str(path.resolve()), "-p", str(work.resolve()), "-e", "stderr"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    process.terminate()
    words = process.communicate()[1].decode(errors="replace").strip()
    raise RuntimeError(f"the range server did not start: {words}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    file: int
    size: int

    def do_GET(self) -> None:
        found = _RANGE.fullmatch(self.headers.get("x-ms-range") or self.headers.get("Range") or "")
        first, last = (int(found[1]), int(found[2])) if found else (0, self.size - 1)
        last = min(last, self.size - 1)
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Content-Range", f"bytes {first}-{last}/{self.size}")
        self.send_header("ETag", '"0x1"')
        self.end_headers()
        self.wfile.flush()
        if isinstance(self.connection, ssl.SSLSocket):
            self.wfile.write(os.pread(self.file, last + 1 - first, first))
            return
        while first <= last:
            first += os.sendfile(self.connection.fileno(), self.file, first, last + 1 - first)

    def log_message(self, *arguments: object) -> None:
        """Quiet: it is measured."""


def main(file: str, port: str, certificate: str = "") -> None:
    """Serve a file until killed."""
    _Handler.file = os.open(file, os.O_RDONLY)
    _Handler.size = os.fstat(_Handler.file).st_size
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), _Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
