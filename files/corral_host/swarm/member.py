"""A job that brings the missing files of this host, and serves those that other hosts miss.

One host fetches a file from the hub and proves it; the others take it from there and from each
other. A host that gets nothing by that way, for whatever reason, asks the hub by itself. An archive
is on one host from the start, and who gets nothing of it reports that to the controller.
"""

import contextlib
import threading
import time
from pathlib import Path

from corral_shared.names import STAGING

from corral_host.swarm import fence, pieces
from corral_host.swarm.board import Board
from corral_host.swarm.carried import Archive, Weights
from corral_host.swarm.lent import Lent
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
from corral_host.swarm.unit import Unit
from corral_host.swarm.unit import stop as end_unit
from corral_host.system.commands import ARIA2_DISK_FULL, HostError, disk_full, say, sentence
from corral_host.weights import fetch
from corral_host.weights.adopt import forget, is_same
from corral_host.weights.models_root import mark, models_root
from corral_host.weights.receipts import arrived_bytes

PAUSE_SECONDS = 1
# How long a member that has all waits for others to read that, before it leaves.
FAREWELL_SECONDS = 10
# After so many hosts that fetched a file and were lost, a host fetches it by itself.
MOST_LOST = 2
MIB = 1024 * 1024


def take_part(spec):
    """Bring what is missing of ``shards``, serve these and ``held`` to members of ``swarm``.

    ``spec``: as of `fetch.fetch`, with swarm (settings.py) and held: proved shards that others of
    this run miss. Where no swarm is possible, the hub serves all.
    """
    settings, paths = settings_of(spec["swarm"]), spec["paths"]
    held, wanted = ([Weights(one, paths) for one in spec[name] if is_carried(one)]
                    for name in ("held", "shards"))  # fmt: skip
    mark(paths)
    with contextlib.ExitStack() as stack:
        unit = Unit(settings, Lent(home_of(spec)), models_root(paths))
        member = entered(stack, settings, held, wanted, unit, "the hub serves all")
        missing, twins = fetch.apart(fetch.to_fetch(spec, forget=True))
        carried = [one for one in missing if member and is_carried(one)]
        fetch.fetch_all([one for one in missing if one not in carried], paths)
        if member:
            member.bring([Weights(one, paths) for one in carried])
        fetch.link_twins(twins, paths)
        if member:
            member.stay()


def share(spec):
    """Take ``archives`` from members of ``swarm``, and serve these and ``held`` to them.

    Returns which arrived, by sha256: the controller sends the others. What is there under the name
    of an archive and not among ``held`` was sent by nobody of this run.
    """
    settings = settings_of(spec["swarm"])
    wanted, held = ([Archive(one) for one in spec[name]] for name in ("archives", "held"))
    for one in wanted:
        one.path.unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        unit = Unit(settings, Lent(home_of(spec)), None)
        member = entered(stack, settings, held, wanted, unit, "the controller sends all")
        if member:
            member.bring(wanted)
            member.stay()
    return {"arrived": [one.sha256 for one in wanted if one.is_whole()]}


def settle(spec):
    """After the job of a spec has ended for any reason: end what it left running."""
    end_unit()
    Lent(home_of(spec)).restore_all()
    fence.take_down()


def home_of(spec):
    """The folder of what arrives: archives of releases, or weights."""
    paths = spec["paths"]
    return Path(paths["state"]) / "archives" if "archives" in spec else models_root(paths) / STAGING


def is_carried(shard):
    """Whether a file goes through the swarm; small files beside the weights do not."""
    return shard.get("kind", "weights") == "weights"


def entered(stack, settings, held, wanted, unit, otherwise):
    """A member until the stack ends; None where no swarm is possible, which is said."""
    try:
        return stack.enter_context(opened(settings, held, wanted, unit))
    except (HostError, OSError) as fault:
        say(f"no swarm on this host, {otherwise}: {fault}")
        return None


@contextlib.contextmanager
def opened(settings, held, wanted, unit):
    """A member that answers the others, until the block ends."""
    with contextlib.ExitStack() as stack:
        stack.callback(fence.take_down)
        fence.put_up(settings)
        board, table = Board(settings), Table()
        stack.callback(unit.stop)
        seeder = Seeder(settings, unit)
        member = Member(settings, held, wanted, board, table, seeder)
        service = Service(settings, table, board)
        stack.callback(service.stop)
        board.start()
        stack.callback(board.stop)
        member.keeper.start()
        stack.callback(member.stop)
        yield member


class Member:
    """The main thread brings files; ``keeper`` starts and ends what is served.

    ``held``: files that others of this run miss, by its plan; ``wanted``: by this host.
    """

    def __init__(self, settings, held, wanted, board, table, seeder):
        self.settings, self.board, self.table, self.seeder = settings, board, table, seeder
        self.lent = seeder.unit.lent
        self.files = {one.sha256: one for one in (*held, *wanted)}
        # Served at once, whoever has said already that it misses them.
        self.missed = {one.sha256 for one in held}
        # Files that no other host gives this one; and for each, the hosts that fetched it.
        self.alone, self.fetchers = set(), {}
        self.served = {}
        self.keeper = threading.Thread(target=self.keep, daemon=True)
        self._stopping = threading.Event()
        for sha256, file in self.files.items():
            self.mark(sha256, HELD if file.is_whole() else WANTED, file.pieces())
            self.table.arrived[sha256] = lambda file=file: arrived_bytes(file.staged)

    def mark(self, sha256, state, digests=""):
        self.table.set(sha256, Entry(state, self.files[sha256].size_bytes, digests))

    def stop(self):
        self._stopping.set()
        self.keeper.join()

    # Bringing

    def bring(self, missing):
        """Bring files, each by the way that is open. Raises HostError where none is."""
        pending = {one.sha256: one for one in missing}
        # A file may be wanted under two names: the one that is brought is the one to serve.
        self.files.update(pending)
        for sha256 in self.files.keys() - pending.keys():
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
        if entry and entry.state not in (HELD, WHOLE) and self.files[sha256].is_whole():
            self.mark(sha256, HELD, entry.pieces)

    def next_of(self, pending):
        """A digest and how to bring its file; None to wait."""
        ways = (
            (lambda one: one in self.alone, self.by_itself),
            (lambda one: bool(self.board.having(one, WHOLE)), self.take),
            (self.is_fetcher, self.fetch),
            (self.is_lost, self.give_up),
        )
        for is_open, bring in ways:
            found = next(filter(is_open, pending), None)
            if found:
                return found, bring
        return None, None

    def by_itself(self, file):
        return self.fetch(file) if file.from_hub else self.give_up(file)

    def is_lost(self, sha256):
        """Whether nobody has a file that the hub does not have, and nobody is about to come."""
        if self.files[sha256].from_hub or self.board.having(sha256, HELD):
            return False
        return all(name in self.board.seen() for name in self.board.awaited())

    def give_up(self, file):
        """Leave a file to the controller."""
        say(f"{file.path.name}: no other host has it, the controller sends it")
        self.table.drop(file.sha256)
        return True

    def is_fetcher(self, sha256):
        """Whether this host is the one that asks the hub for a file that nobody has."""
        if not self.files[sha256].from_hub:
            return False
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
        """Whether a member before this one may be about to fetch a file."""
        if name not in states:
            # Its job may begin a moment later; one that was seen and is silent now is lost.
            unseen = name in self.settings.expected and name not in self.board.seen()
            return unseen and self.board.is_awaited(name)
        of = states[name]
        return of.get(sha256) == WANTED and not {FETCHING, TAKING} & set(of.values())

    def fetch(self, file):
        """Fetch a file from the hub; it is served from then on."""
        digests = []
        say(f"{file.path.name}: from the hub. {self.group()}")
        self.mark(file.sha256, FETCHING)

        def digest_of(path, progress):
            found, text = pieces.read(path, path.stat().st_size, progress)
            digests.append(text)
            return found

        file.fetch(digest_of)
        self.proved(file, digests[-1])
        return True

    def take(self, file):
        """Take a file from other members; False where that did not succeed."""
        digests = self.board.pieces(file.sha256, file.size_bytes)
        if digests is None:
            time.sleep(PAUSE_SECONDS)
            return False
        file.prepare()
        self.mark(file.sha256, TAKING, digests)
        gid = None
        try:
            gid = self.seeder.add(file, digests, self.lent.lend(file.staged), whole=False)
            arrived = self.follow(file, gid)
        except SeederError as fault:
            return self.leave(file, gid, str(fault), alone=True)
        if not arrived:
            someone = bool(self.board.having(file.sha256, WHOLE))
            why = f"nothing arrived in {fetch.PATIENCE_SECONDS} s from other hosts"
            return self.leave(file, gid, why, alone=someone)
        self.end(file, gid)
        if not file.staged.is_file():
            # Only a plain file is restored; aria2 is not trusted to leave one.
            return self.leave(file, None, "what arrived is no plain file", alone=True)
        return self.prove(file)

    def prove(self, file):
        """Put a file in place if it has its digest; False if it does not."""
        size, name, about = file.size_bytes, file.path.name, file.staged.stat()
        found, digests = pieces.read(
            file.staged, size, lambda done: say(f"proving {fetch.percent(done, size)} of {name}")
        )
        if found != file.sha256 or not is_same(file.staged.stat(), about):
            self.leave(file, None, f"other hosts gave bytes with sha256 {found[:16]}", alone=True)
            forget(file.staged)
            return False
        file.put_in_place(about)
        forget(file.staged)
        self.proved(file, digests)
        return True

    def follow(self, file, gid):
        """Wait until a file is whole; False when nothing has arrived for a while."""
        had, since = 0, time.monotonic()
        while True:
            time.sleep(PAUSE_SECONDS)
            now = self.seeder.status(gid)
            done = int(now["completedLength"])
            if now["status"] == "error":
                if now["errorCode"] == str(ARIA2_DISK_FULL):
                    raise disk_full(file.staged.parent)
                raise SeederError(f"aria2 gave up on {file.path.name} (code {now['errorCode']})")
            if now.get("seeder") == "true" or now["status"] == "complete":
                return True
            if done - had >= fetch.LEAST_BYTES:
                had, since = done, time.monotonic()
            if time.monotonic() - since > fetch.PATIENCE_SECONDS:
                return False
            say(self.progress(file, now, done))

    def leave(self, file, gid, why, *, alone):
        """Stop to take a file; what has arrived stays, for the next way. Returns False."""
        if alone:
            self.alone.add(file.sha256)
        rest = "the hub serves the rest" if file.from_hub else "the controller sends it"
        say(f"{file.path.name}: {why}; {rest if alone else 'another host is asked'}")
        self.end(file, gid)
        self.mark(file.sha256, WANTED)
        return False

    def end(self, file, gid):
        """Let aria2 close a file, and restore it."""
        if gid is not None:
            with contextlib.suppress(SeederError):
                self.seeder.remove(gid)
        self.lent.restore(file.staged)

    def proved(self, file, digests):
        file.keep_pieces(digests)
        self.mark(file.sha256, HELD, digests)

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
            if not self.files[sha256].is_whole():
                self.table.drop(sha256)
                self.seeder.remove(gid)
                self.lent.hide(self.files[sha256].path)
                del self.served[sha256]
                say(f"{self.files[sha256].path} is gone or changed, it is served no more")

    def offer_wanted(self):
        wanted = self.missed | {
            sha256 for one in self.board.living().values()
            for sha256, (state, _) in one.shards.items() if state in LACKING
        }  # fmt: skip
        for sha256, entry in self.table.entries().items():
            if entry.state == HELD and sha256 in wanted:
                self.offer(self.files[sha256], entry.pieces)

    def offer(self, file, digests):
        """Serve a whole file. Without digests of its pieces it is read, which proves it again."""
        if not digests:
            say(f"reads {file.path.name} for other hosts")
            found, digests = pieces.read(file.path, file.size_bytes)
            if found != file.sha256:
                file.spoil()
                self.table.drop(file.sha256)
                say(
                    f"{file.path} has other bytes than when it was proved; the next deploy "
                    "fetches it"
                )
                return
            file.keep_pieces(digests)
        if not file.is_whole():
            self.table.drop(file.sha256)
            return
        place = file.path if file.is_readable else self.lent.show(file.path)
        self.served[file.sha256] = self.seeder.add(file, digests, place, whole=True)
        self.mark(file.sha256, WHOLE, digests)

    # Progress

    def progress(self, file, now, done):
        rate = int(now["downloadSpeed"]) / MIB
        share = fetch.percent(done, file.size_bytes)
        sent = self.seeder.sent_per_second() / MIB
        return (
            f"{file.path.name}: {share}, {rate:.1f} MiB/s from {now['connections']} "
            f"hosts, {sent:.1f} MiB/s sent. {self.group()}"
        )

    def group(self):
        """Progress of all members that answer, in the files of this host."""
        tables = [self.table.document()["shards"]]
        tables += [one.shards for one in self.board.living().values()]
        done = total = whole = 0
        for table in tables:
            mine = {sha: table[sha] for sha in self.files if sha in table}
            done += sum(size for _, size in mine.values())
            total += sum(self.files[sha].size_bytes for sha in mine)
            whole += all(state in (HELD, WHOLE) for state, _ in mine.values())
        share = fetch.percent(done, total)
        return f"Group: {share} of {len(tables)} hosts, {whole} have all"
