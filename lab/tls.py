"""Certificates of the lab: one authority per lab directory and one server certificate for loopback.

Every emulator serves TLS with them, so that clients keep certificate checks on and only have to be
told one more authority (``ca.pem``). The authority is made once and then reused, because a client
that was started earlier must still trust an emulator that was killed and started again.
"""

from __future__ import annotations

import fcntl
import os
import ssl
from pathlib import Path

import trustme

CA_FILE = "ca.pem"
SERVER_FILE = "server.pem"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


def ensure_certificates(directory: Path) -> Path:
    """Make the authority and the server certificate in ``directory`` if they are not there.

    Safe to call from several emulators at the same time: a file lock lets one of them do it.
    Returns the path of the authority's certificate in PEM, which is what a client must trust.
    """
    directory.mkdir(parents=True, exist_ok=True)
    authority_file = directory / CA_FILE
    with (directory / ".tls.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The authority is written last: whoever sees it may rely on the server certificate.
        if not authority_file.exists():
            authority = trustme.CA(organization_name="failback lab")
            server = authority.issue_cert(*LOOPBACK_NAMES, common_name="failback lab emulator")
            _write(directory / SERVER_FILE, server.private_key_and_cert_chain_pem.bytes())
            _write(authority_file, authority.cert_pem.bytes())
    return authority_file


def server_context(directory: Path) -> ssl.SSLContext:
    """A server-side TLS context with the lab's certificate; makes the certificates if need be."""
    ensure_certificates(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(directory / SERVER_FILE)
    return context


def _write(path: Path, content: bytes) -> None:
    """Replace ``path`` in one step, readable by its owner only (it may hold a private key)."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
