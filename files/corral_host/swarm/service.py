"""The service of a member: its table, digests of pieces, and the tracker of its own aria2.

Bound to the host's address of the inventory. Whoever is not a member gets no answer.
"""

import contextlib
import ipaddress
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote_to_bytes, urlsplit

from corral_host.swarm.pieces import bencoded, info_hash
from corral_host.swarm.table import TAKING, WHOLE

# Who is late is known to the others by then; the tracker is on this host.
ANNOUNCE_SECONDS = 2


class Service(ThreadingHTTPServer):
    """Serves until `stop`. ``board``: whom the tracker names."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, settings, table, board):
        if ipaddress.ip_address(settings.me.address).version == 6:
            self.address_family = socket.AF_INET6
        self.settings, self.table, self.board = settings, table, board
        super().__init__((settings.me.address, settings.me.port), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def verify_request(self, request, client_address):  # noqa: ARG002 - socketserver's
        return client_address[0] in self.settings.addresses

    def handle_error(self, request, client_address):
        """Nothing: a client that goes away is no fault of this host."""

    def stop(self):
        self.shutdown()
        self.server_close()
        self._thread.join()


class Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self):
        place = urlsplit(self.path)
        what, _, rest = place.path.lstrip("/").partition("/")
        body = None
        if what == "table":
            self.server.table.asked(rest)
            body = json.dumps(self.server.table.document()).encode()
        elif what == "pieces":
            entry = self.server.table.get(rest)
            body = entry.pieces.encode() if entry and entry.pieces else None
        elif what == "announce" and self.client_address[0] == self.server.settings.me.address:
            body = self.peers(place.query)
        self.reply(body)

    def peers(self, query):
        """The members that have pieces of a torrent, as BEP 23 and BEP 7 write them."""
        fields = dict(part.partition("=")[::2] for part in query.split("&"))
        wanted = unquote_to_bytes(fields.get("info_hash", ""))
        found = {b"": b"", b"6": b""}
        for peer in self.server.board.sharing(self.sha256_of(wanted)):
            address = ipaddress.ip_address(peer.address)
            kind = b"" if address.version == 4 else b"6"
            found[kind] += address.packed + peer.data_port.to_bytes(2, "big")
        lists = {b"peers" + kind: peers for kind, peers in found.items()}
        return bencoded({b"interval": ANNOUNCE_SECONDS, **lists})

    def sha256_of(self, wanted):
        for sha256, entry in self.server.table.entries().items():
            about = sha256, entry.size_bytes, entry.pieces
            if entry.state in (TAKING, WHOLE) and info_hash(*about) == wanted:
                return sha256
        return None

    def reply(self, body):
        with contextlib.suppress(OSError):
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

    def log_message(self, *_):
        """Nothing: the log of a job is for its progress."""
