"""The aria2 of a member: it takes pieces from other members and serves them."""

import base64
import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import time

from corral_host.swarm.pieces import torrent
from corral_host.system.commands import HostError
from corral_host.weights.fetch import end

# Private torrents: members are found by this host's own tracker alone. aria2 would stop serving
# once it had sent as much as it received.
ARIA2 = (
    "--enable-rpc=true", "--rpc-listen-all=false", "--enable-dht=false",
    "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false",
    "--bt-tracker-interval=5", "--seed-ratio=0.0", "--file-allocation=none",
    "--auto-save-interval=5", "--console-log-level=error", "--show-console-readout=false",
    "--summary-interval=0", "--download-result=hide", "--allow-overwrite=true",
    "--auto-file-renaming=false", "--max-concurrent-downloads=1000", "--no-netrc=true",
    "--bt-save-metadata=false", "--rpc-save-upload-metadata=false", "--follow-torrent=false",
    "--bt-remove-unselected-file=false", "--peer-agent=corral", "--disk-cache=32M",
    # What came from the hub came in pieces of another size.
    "--allow-piece-length-change=true", "--continue=true",
)  # fmt: skip
# Reads and writes of servers go first; CPU and disk weights are those of the job's unit.
GENTLE = ("ionice", "-c", "2", "-n", "7")
START_SECONDS = 10
ASK_SECONDS = 10


class SeederError(HostError):
    """aria2 refuses, or does not run any more; the hub is left."""


class Seeder:
    """One aria2 for all files of a member. Its methods raise SeederError."""

    def __init__(self, settings):
        self.settings = settings
        self._secret, self._port = secrets.token_hex(16), free_port()
        self._process = self._start()
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise SeederError(f"aria2 did not start to listen on port {settings.me.data_port}")
            time.sleep(0.05)

    def _start(self):
        me = self.settings.me
        # Everybody may read arguments; this file is in memory and ends with aria2.
        with os.fdopen(os.memfd_create("aria2"), "w") as memory:
            memory.write(f"rpc-secret={self._secret}\n")
            memory.flush()
            place = f"/proc/self/fd/{memory.fileno()}"
            return subprocess.Popen(
                [
                    *GENTLE, "aria2c", *ARIA2, f"--conf-path={place}", f"--interface={me.address}",
                    f"--rpc-listen-port={self._port}", f"--listen-port={me.data_port}",
                    f"--max-overall-upload-limit={self.settings.upload_bytes_per_second}",
                    f"--bt-max-peers={self.settings.connections}",
                    f"--disable-ipv6={'false' if ':' in me.address else 'true'}",
                    f"--stop-with-process={os.getpid()}",
                ],
                stdin=subprocess.DEVNULL, pass_fds=(memory.fileno(),),
            )  # fmt: skip

    def _answers(self):
        with contextlib.suppress(SeederError):
            return bool(self.ask("getVersion"))
        return False

    @property
    def pid(self):
        return self._process.pid

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
        document = torrent(file, pieces, f"http://{host}:{me.port}/announce")
        options = {
            "dir": str(place.parent), "index-out": f"1={place.name}",
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

    def stop(self):
        end(self._process)


def free_port():
    """A port on loopback that nobody has; if somebody takes it meanwhile, aria2 does not start."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
