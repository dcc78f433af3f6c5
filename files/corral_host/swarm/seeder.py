"""The aria2 of a member: it takes pieces from other members and serves them."""

import base64
import contextlib
import http.client
import json
import os
import secrets
import socket
import time

from corral_host.swarm.pieces import torrent
from corral_host.swarm.service import ANNOUNCE_SECONDS
from corral_host.system.commands import HostError

# Private torrents: members are found by this host's own tracker alone. aria2 would stop serving
# once it had sent as much as it received.
ARIA2 = (
    "--enable-rpc=true", "--rpc-listen-all=false", "--enable-dht=false",
    "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false",
    f"--bt-tracker-interval={ANNOUNCE_SECONDS}", "--seed-ratio=0.0", "--file-allocation=none",
    "--auto-save-interval=5", "--console-log-level=error", "--show-console-readout=false",
    "--summary-interval=0", "--download-result=hide", "--allow-overwrite=true",
    "--auto-file-renaming=false", "--max-concurrent-downloads=1000", "--no-netrc=true",
    "--bt-save-metadata=false", "--rpc-save-upload-metadata=false", "--follow-torrent=false",
    "--bt-remove-unselected-file=false", "--peer-agent=corral", "--disk-cache=32M",
    # What came from the hub came in pieces of another size.
    "--allow-piece-length-change=true", "--continue=true",
)  # fmt: skip
START_SECONDS = 10
ASK_SECONDS = 10


class SeederError(HostError):
    """aria2 refuses, or does not run any more; the hub is left."""


class Seeder:
    """One aria2 for all files of a member. Its methods raise SeederError.

    ``unit``: where it runs (unit.py); whoever made that stops it.
    """

    def __init__(self, settings, unit):
        self.settings, self.unit = settings, unit
        self._secret, self._port = secrets.token_hex(16), free_port()
        unit.start(self._arguments(), f"rpc-secret={self._secret}\n")
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if unit.has_ended() or time.monotonic() > until:
                raise SeederError(f"aria2 did not start to listen on port {settings.me.data_port}")
            time.sleep(0.05)
        unit.started()

    def _arguments(self):
        me = self.settings.me
        return (
            *ARIA2, f"--interface={me.address}", f"--rpc-listen-port={self._port}",
            f"--listen-port={me.data_port}", f"--bt-max-peers={self.settings.connections}",
            f"--max-overall-upload-limit={self.settings.upload_bytes_per_second}",
            f"--disable-ipv6={'false' if ':' in me.address else 'true'}",
        )  # fmt: skip

    def _answers(self):
        with contextlib.suppress(SeederError):
            return bool(self.ask("getVersion"))
        return False

    def ask(self, method, *parameters):
        """Result of a method of aria2."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ASK_SECONDS)
        document = {
            "jsonrpc": "2.0", "id": "1", "method": f"aria2.{method}",
            "params": [f"token:{self._secret}", *parameters],
        }  # fmt: skip
        try:
            connection.request("POST", "/jsonrpc", json.dumps(document).encode())
            found = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as fault:
            raise SeederError(f"aria2 does not answer: {fault}") from fault
        finally:
            connection.close()
        if "result" not in found:
            raise SeederError(f"aria2 refused {method}: {found.get('error', {}).get('message')}")
        return found["result"]

    def add(self, file, pieces, place, *, whole):
        """Take a file to a place, or serve one that is whole there; returns its id."""
        me = self.settings.me
        host = f"[{me.address}]" if ":" in me.address else me.address
        inside = self.unit.inside(place)
        document = torrent(file, pieces, f"http://{host}:{me.port}/announce")
        options = {
            "dir": os.path.dirname(inside), "index-out": f"1={os.path.basename(inside)}",
            "bt-seed-unverified": "true" if whole else "false",
        }  # fmt: skip
        return self.ask("addTorrent", base64.b64encode(document).decode(), [], options)

    def status(self, gid):
        """Numbers and the state of one transfer."""
        keys = ["status", "completedLength", "downloadSpeed", "connections", "errorCode", "seeder"]
        return self.ask("tellStatus", gid, keys)

    def sent_per_second(self):
        return int(self.ask("getGlobalStat")["uploadSpeed"])

    def remove(self, gid):
        """Stop a transfer at once and close its file; one that ended counts as removed."""
        with contextlib.suppress(SeederError):
            self.ask("forceRemove", gid)
        with contextlib.suppress(SeederError):
            while self.status(gid)["status"] not in ("removed", "complete", "error"):
                time.sleep(0.05)
        with contextlib.suppress(SeederError):
            self.ask("removeDownloadResult", gid)


def free_port():
    """A port on loopback that nobody has; if somebody takes it meanwhile, aria2 does not start."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
