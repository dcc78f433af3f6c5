"""A job that brings the missing shards of this host, and serves those that other hosts miss.

One host fetches a shard from the hub and proves it; the others take it from there and from each
other. A host that gets nothing by that way, for whatever reason, asks the hub by itself.
"""

import contextlib
import threading
import time
from pathlib import Path

from corral_host.swarm import fence, pieces
from corral_host.swarm.board import Board
from corral_host.swarm.seeder import Seeder, SeederError
from corral_host.swarm.service import Service
from corral_host.swarm.settings import settings_of
from corral_host.swarm.table import (
    FETCHING,
    HELD,
    LACKING,
    TAKING,
    WANTED,
    WHOLE,
    Entry,
    Table,
)
from corral_host.system.commands import HostError, say, sentence
from corral_host.weights import fetch
from corral_host.weights.adopt import forget
from corral_host.weights.receipts import (
    arrived_bytes,
    receipt_path,
    shard_is_proved,
    staging_path,
)

PAUSE_SECONDS = 1
# How long a member that has all waits for others to read that, before it leaves.
FAREWELL_SECONDS = 10
# After so many hosts that fetched a shard and were lost, a host fetches it by itself.
MOST_LOST = 2
ARIA2_DISK_FULL = "9"
MIB = 1024 * 1024


def take_part(spec):
    """Bring what is missing of ``shards``, serve these and ``held`` to members of ``swarm``.

    ``spec``: as of `fetch.fetch`, with swarm (settings.py) and held: proved shards that others of
    this run miss. Where no swarm is possible, the hub serves all.
    """
    settings = settings_of(spec["swarm"])
    with contextlib.ExitStack() as stack:
        member = None
        try:
            member = stack.enter_context(opened(settings, spec))
        except (HostError, OSError) as fault:
            say(f"no swarm on this host, the hub serves all: {fault}")
        missing = fetch.to_fetch(spec, forget=True)
        if member is None:
            fetch.fetch_all(missing, spec["paths"])
            return
        member.bring(missing)
        member.stay()


@contextlib.contextmanager
def opened(settings, spec):
    """A member that answers the others, until the block ends."""
    with contextlib.ExitStack() as stack:
        stack.callback(fence.take_down)
        fence.put_up(settings)
        board, table = Board(settings), Table()
        seeder = Seeder(settings)
        stack.callback(seeder.stop)
        member = Member(settings, spec, board, table, seeder)
        service = Service(settings, table, board)
        stack.callback(service.stop)
        board.start()
        stack.callback(board.stop)
        member.keeper.start()
        stack.callback(member.stop)
        yield member


def is_carried(shard):
    """Whether a file goes through the swarm; small files beside the weights do not."""
    return shard.get("kind", "weights") == "weights"


class Member:
    """The main thread brings shards; ``keeper`` starts and ends what is served."""

    def __init__(self, settings, spec, board, table, seeder):
        self.settings, self.board, self.table, self.seeder = settings, board, table, seeder
        self.paths = spec["paths"]
        self.folder = pieces.pieces_folder(self.paths)
        self.shards = {
            one["sha256"]: one for one in (*spec["held"], *spec["shards"]) if is_carried(one)
        }
        # Shards that only the hub gives this host; and for each, the hosts that fetched it.
        self.alone, self.fetchers = set(), {}
        self.served = {}
        self.keeper = threading.Thread(target=self.keep, daemon=True)
        self._stopping = threading.Event()
        for sha256, shard in self.shards.items():
            state = HELD if shard_is_proved(shard) else WANTED
            self.mark(sha256, state, pieces.kept(shard, self.folder) or "")
            self.table.arrived[sha256] = lambda shard=shard: arrived_bytes(
                staging_path(shard, self.paths)
            )

    def mark(self, sha256, state, digests=""):
        self.table.set(sha256, Entry(state, self.shards[sha256]["size_bytes"], digests))

    def stop(self):
        self._stopping.set()
        self.keeper.join()

    # Bringing

    def bring(self, missing):
        """Bring shards, each by the way that is open. Raises HostError where none is."""
        fetch.fetch_all([one for one in missing if not is_carried(one)], self.paths)
        pending = {one["sha256"]: one for one in missing if is_carried(one)}
        for sha256 in self.shards.keys() - pending.keys():
            # Held, or linked from other files of this host meanwhile.
            self.mark_proved(sha256)
        self.board.ask_all()
        while pending:
            sha256, bring = self.next_of(pending)
            if bring is None:
                say(f"waits for the first host. {self.group()}")
                time.sleep(PAUSE_SECONDS)
            elif bring(pending[sha256]):
                del pending[sha256]

    def mark_proved(self, sha256):
        entry = self.table.get(sha256)
        if entry and entry.state not in (HELD, WHOLE) and shard_is_proved(self.shards[sha256]):
            self.mark(sha256, HELD, entry.pieces)

    def next_of(self, pending):
        """A digest and how to bring its shard; None to wait."""
        ways = (
            (lambda one: one in self.alone, self.fetch),
            (lambda one: bool(self.board.having(one, WHOLE)), self.take),
            (self.is_fetcher, self.fetch),
        )
        for is_open, bring in ways:
            found = next(filter(is_open, pending), None)
            if found:
                return found, bring
        return None, None

    def is_fetcher(self, sha256):
        """Whether this host is the one that asks the hub for a shard that nobody has."""
        fetching = self.board.having(sha256, FETCHING)
        before = self.fetchers.setdefault(sha256, set())
        before.update(fetching)
        if fetching or self.board.having(sha256, HELD):
            return False
        if len(before) >= MOST_LOST:
            return True
        states = {
            name: {sha: state for sha, (state, _) in one.shards.items()}
            for name, one in self.board.living().items()
        }
        busy = [name for name, of in states.items() if FETCHING in of.values()]
        if len(busy) >= self.settings.from_hub:
            return False
        return self.settings.me.name == next(
            peer.name for peer in self.settings.peers
            if peer == self.settings.me or self.may_fetch(peer.name, sha256, states)
        )  # fmt: skip

    def may_fetch(self, name, sha256, states):
        """Whether a member before this one may be about to fetch a shard."""
        if name not in states:
            # Its job may begin a moment later; one that was seen and is silent now is lost.
            unseen = name in self.settings.expected and name not in self.board.seen()
            return unseen and self.board.is_awaited(name)
        of = states[name]
        return of.get(sha256) == WANTED and not {FETCHING, TAKING} & set(of.values())

    def fetch(self, shard):
        """Fetch a shard from the hub; it is served from then on."""
        sha256, digests = shard["sha256"], []
        say(f"{Path(shard['path']).name}: from the hub. {self.group()}")
        self.mark(sha256, FETCHING)

        def digest_of(path, progress):
            found, text = pieces.read(path, path.stat().st_size, progress)
            digests.append(text)
            return found

        fetch.refuse(fetch.root_fault(self.paths))
        fetch.fetch_shard(shard, staging_path(shard, self.paths), digest_of)
        self.proved(shard, digests[-1])
        return True

    def take(self, shard):
        """Take a shard from other members; False where that did not succeed."""
        sha256, staged = shard["sha256"], staging_path(shard, self.paths)
        digests = self.board.pieces(sha256, shard["size_bytes"])
        if digests is None:
            time.sleep(PAUSE_SECONDS)
            return False
        fetch.refuse(fetch.root_fault(self.paths))
        fetch.make_folders(shard, staged)
        self.mark(sha256, TAKING, digests)
        gid = None
        try:
            gid = self.seeder.add(shard, digests, staged, whole=False)
            arrived = self.follow(shard, gid)
        except SeederError as fault:
            return self.leave(shard, gid, str(fault), alone=True)
        if not arrived:
            someone = bool(self.board.having(sha256, WHOLE))
            why = f"nothing arrived in {fetch.PATIENCE_SECONDS} s from other hosts"
            return self.leave(shard, gid, why, alone=someone)
        size, name = shard["size_bytes"], staged.name
        found, own = pieces.read(
            staged, size, lambda done: say(f"proving {fetch.percent(done, size)} of {name[:16]}")
        )
        if found != sha256:
            self.leave(shard, gid, f"other hosts gave bytes with sha256 {found[:16]}", alone=True)
            forget(staged)
            return False
        self.remove(gid)
        fetch.put_in_place(shard, staged)
        forget(staged)
        self.proved(shard, own)
        return True

    def follow(self, shard, gid):
        """Wait until a shard is whole; False when nothing has arrived for a while."""
        had, since, sha256 = 0, time.monotonic(), shard["sha256"]
        while True:
            time.sleep(PAUSE_SECONDS)
            now = self.seeder.status(gid)
            done = int(now["completedLength"])
            if now["status"] == "error":
                if now["errorCode"] == ARIA2_DISK_FULL:
                    folder = staging_path(shard, self.paths).parent
                    what = f"{folder}: disk full"
                    raise HostError(what, "free space there, run the deploy again")
                raise SeederError(f"aria2 gave up on {sha256[:16]} (code {now['errorCode']})")
            if now.get("seeder") == "true" or now["status"] == "complete":
                return True
            if done - had >= fetch.LEAST_BYTES:
                had, since = done, time.monotonic()
            if time.monotonic() - since > fetch.PATIENCE_SECONDS:
                return False
            say(self.progress(shard, now, done))

    def leave(self, shard, gid, why, *, alone):
        """Stop to take a shard; what has arrived stays, for the next way. Returns False."""
        if alone:
            self.alone.add(shard["sha256"])
        then = "the hub serves the rest" if alone else "another host is asked"
        say(f"{Path(shard['path']).name}: {why}; {then}")
        self.remove(gid)
        self.mark(shard["sha256"], WANTED)
        return False

    def remove(self, gid):
        if gid is not None:
            with contextlib.suppress(SeederError):
                self.seeder.remove(gid)

    def proved(self, shard, digests):
        pieces.keep(shard, self.folder, digests)
        self.mark(shard["sha256"], HELD, digests)

    # Serving

    def stay(self):
        """Serve until no other member wants anything of this host, or for the limited time."""
        self.table.settle()
        began = time.monotonic()
        while time.monotonic() - began < self.settings.upload_seconds:
            wanting = [name for name in self.board.awaited() if self.may_want(name)]
            if not wanting and self.is_known_to_all(began):
                return
            if wanting:
                say(f"has all, serves {len(wanting)} hosts. {self.group()}")
            time.sleep(PAUSE_SECONDS)
        say(f"stops to serve others after {self.settings.upload_seconds} s")

    def may_want(self, name):
        one, mine = self.board.seen().get(name), self.table.entries()
        return one is None or any(
            state in LACKING and sha256 in mine for sha256, (state, _) in one.shards.items()
        )

    def is_known_to_all(self, began):
        living = set(self.board.living()) & set(self.settings.expected)
        waited = time.monotonic() - began > FAREWELL_SECONDS
        return waited or all(map(self.table.knows, living))

    def keep(self):
        """The keeper's thread: serve what is proved and wanted, and nothing that is gone."""
        while not self._stopping.wait(PAUSE_SECONDS):
            try:
                self.drop_gone()
                self.offer_wanted()
            except SeederError as fault:
                for sha256 in list(self.served):
                    self.table.drop(sha256)
                say(f"serves nothing any more: {sentence(fault.what, fault.next_step)}")
                return
            except OSError as fault:
                say(f"a file could not be served: {fault}")

    def drop_gone(self):
        """End what is served of files that were removed or changed, or lost their receipt."""
        for sha256, gid in list(self.served.items()):
            if not shard_is_proved(self.shards[sha256]):
                self.table.drop(sha256)
                self.seeder.remove(gid)
                del self.served[sha256]
                say(f"{self.shards[sha256]['path']} is gone or changed, it is served no more")

    def offer_wanted(self):
        wanted = {
            sha256 for one in self.board.living().values()
            for sha256, (state, _) in one.shards.items() if state in LACKING
        }  # fmt: skip
        for sha256, entry in self.table.entries().items():
            if entry.state == HELD and sha256 in wanted:
                self.offer(self.shards[sha256], entry.pieces)

    def offer(self, shard, digests):
        """Serve a proved file. Without digests of its pieces it is read, which proves it again."""
        sha256, path = shard["sha256"], Path(shard["path"])
        if not digests:
            say(f"reads {path.name} for other hosts")
            found, digests = pieces.read(path, shard["size_bytes"])
            if found != sha256:
                receipt_path(shard).unlink(missing_ok=True)
                self.table.drop(sha256)
                say(f"{path} has other bytes than when it was proved; the next deploy fetches it")
                return
            pieces.keep(shard, self.folder, digests)
        if not shard_is_proved(shard):
            self.table.drop(sha256)
            return
        self.served[sha256] = self.seeder.add(shard, digests, path, whole=True)
        self.mark(sha256, WHOLE, digests)

    # Progress

    def progress(self, shard, now, done):
        rate = int(now["downloadSpeed"]) / MIB
        share = fetch.percent(done, shard["size_bytes"])
        sent = self.seeder.sent_per_second() / MIB
        return (
            f"{Path(shard['path']).name}: {share}, {rate:.1f} MiB/s from {now['connections']} "
            f"hosts, {sent:.1f} MiB/s sent. {self.group()}"
        )

    def group(self):
        """Progress of all members that answer, in the shards of this host."""
        tables = [self.table.document()["shards"]]
        tables += [one.shards for one in self.board.living().values()]
        done = total = whole = 0
        for table in tables:
            mine = {sha: table[sha] for sha in self.shards if sha in table}
            done += sum(size for _, size in mine.values())
            total += sum(self.shards[sha]["size_bytes"] for sha in mine)
            whole += all(state in (HELD, WHOLE) for state, _ in mine.values())
        share = fetch.percent(done, total)
        return f"Group: {share} of {len(tables)} hosts, {whole} have all"
