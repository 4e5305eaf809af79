"""An emulator's way in: its own certificates, and a proxy that connects to itself and to nobody else."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer
from typing import Any


def write_certificates(folder: Path, hosts: Iterable[str]) -> ssl.SSLContext:
    """An authority in ``ca.pem``, for clients to trust, and the context of a server whose `hosts` it vouches for."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def started(subject: str, key: Any) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        made = x509.CertificateBuilder().subject_name(named(subject)).issuer_name(named("Emulated authority"))
        made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
        return made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    own, signs = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), [False] * 9
    signs[5] = True  # key_cert_sign
    authority = started("Emulated authority", ca_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    authority = authority.add_extension(own, False).add_extension(x509.KeyUsage(*signs), True)
    names = [x509.DNSName(name) for name in hosts] + [x509.IPAddress(ip_address("127.0.0.1"))]
    leaf = started("Emulated host", key).add_extension(x509.SubjectAlternativeName(names), False)
    leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), False)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_bytes(authority.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(secret + leaf.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


class Tunnel(BaseHTTPRequestHandler):
    """A proxy's connection that becomes the server's own once the client has named a host we play."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: else each answer waits 40 ms
    server: Server
    host = ""
    is_torn = False

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def do_CONNECT(self) -> None:
        host = self.path.rpartition(":")[0].lower()
        if not self.server.emulator.plays(host):
            self.refuse(host)
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.server.open.discard(self.connection)
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.server.open.add(self.connection)
        self.rfile, self.wfile = self.connection.makefile("rb", -1), self.connection.makefile("wb", 0)
        self.host, self.close_connection = host, False

    def refuse(self, host: str) -> None:
        self.server.emulator.refused_hosts.append(host)
        self.close_connection = True
        self.send_response(403, "Forbidden")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def finish(self) -> None:
        """Closes the encrypted socket, which the server does not know; a torn one ends with a reset."""
        self.server.open.discard(self.connection)
        with contextlib.suppress(OSError, ValueError):
            if self.is_torn:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            super().finish()
        self.rfile.close()
        self.connection.close()


class Server(ThreadingHTTPServer):
    """Listens until closed; `emulator` says which hosts it plays, and keeps the names of the others."""

    request_queue_size = 128

    def __init__(self, emulator: Any, tls: ssl.SSLContext, handler: type[Tunnel]) -> None:
        self.emulator, self.tls, self.open = emulator, tls, set[Any]()
        super().__init__(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would ask the name service

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # clients may leave as they please
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Ends it, and the connections that clients keep for later."""
        self.shutdown()
        self.thread.join()
        self.server_close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # SSLSocket's own is not for other threads
