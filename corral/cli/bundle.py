"""`corral bundle`: all that hosts without a network need, written, proved and served."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import click
from corral_shared.text import counted

from corral.cli import import_from_the_checkout
from corral.cli.select import inventories, print_mistakes
from corral.cli.short_group import ShortGroup
from corral.errors import CorralError
from corral.offline.by_ssh import Way, leading_here, ways
from corral.offline.manifest import Bundle
from corral.offline.needs import needs_of
from corral.offline.routes import Routes
from corral.offline.serve import serving, take_headers
from corral.offline.verify import Opened, prove, refuse_other_base, surplus
from corral.offline.write import Options, write_bundle
from corral.planning.load import load_planner
from corral.project import project_root
from corral.terminal import echo

_MIB = 1024**2
DEFAULT_PORT = 8090
_MOST_SHOWN = 5

_folder = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
_key_option = click.option(
    "--public-key", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="The manifest must be signed with this key (minisign).",
)  # fmt: skip


@click.group(cls=ShortGroup, meant="write")
def bundle() -> None:
    """Write, prove and serve all that hosts without a network need.

    `corral bundle -o FOLDER INVENTORY` is short for `corral bundle write -o FOLDER INVENTORY`.
    """


@bundle.command("write")
@click.argument("inventory", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True,
    help="Folder of the bundle. The same command again goes on where it stopped.",
)  # fmt: skip
@click.option(
    "--since", type=click.Path(path_type=Path, exists=True), metavar="BUNDLE",
    help="Leave out what this earlier bundle has; its folder, or a copy of its bundle.json.",
)  # fmt: skip
@click.option(
    "--sources", multiple=True, metavar="PLATFORM=FILE",
    help="Package sources (sources.list(5)) of a platform; this controller's own for its own.",
)  # fmt: skip
@click.option("--package", "packages", multiple=True, help="One more package for all hosts.")
@click.option(
    "--sign-with", "key", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Sign the manifest with this secret key (minisign).",
)  # fmt: skip
@click.option(
    "--passphrase-stdin", is_flag=True, help="The first line of the input is the key's passphrase."
)
def write(
    inventory: Path,
    output: Path,
    since: Path | None,
    sources: tuple[str, ...],
    packages: tuple[str, ...],
    key: Path | None,
    passphrase_stdin: bool,
) -> None:
    """Write all that the hosts of INVENTORY need to a folder, such as a disk to carry.

    corral.lock, weights, headers, engine releases, images, wheels, packages of the distributions
    and Corral itself. Its manifest, bundle.json, is written last.
    """
    passphrase = sys.stdin.readline().rstrip("\n") if passphrase_stdin else None
    if passphrase_stdin and key is None:
        raise CorralError(
            "--passphrase-stdin", "there is no key to sign with", "add --sign-with FILE"
        )
    import_from_the_checkout()
    root = project_root()
    planner = load_planner(root)
    needs = needs_of(inventories(inventory).read[0], planner)
    options = Options(
        sources=_sources(sources), packages=packages, since=since, key=key, passphrase=passphrase
    )
    done = write_bundle(output, root, needs, planner.catalog, options, echo)
    echo(f"{output}: {_summary(done)}")
    for sentence in done.left_out:
        echo(f"  not in it: {sentence}")
    signed = "signed" if key else "not signed: add --sign-with KEY"
    echo(f"  {signed}. Next: `corral bundle verify {output}`, also where it arrives")


@bundle.command()
@_folder
@_key_option
def verify(folder: Path, public_key: Path | None) -> None:
    """Prove every file of a bundle against its manifest."""
    opened = Opened(folder, public_key=public_key)
    prove(opened, echo)
    echo(f"{folder}: {_summary(opened.bundle)}: all as the manifest says")
    others = surplus(opened)
    if others:
        shown = ", ".join(others[:_MOST_SHOWN])
        echo(f"  {counted(len(others), 'file')} not of it, never served: {shown}", err=True)
    if public_key is None:
        echo("  whose bundle it is was not proved: add --public-key FILE", err=True)


@bundle.command()
@click.argument(
    "folders", nargs=-1, required=True, metavar="FOLDER...",
    type=click.Path(path_type=Path, file_okay=False),
)  # fmt: skip
@click.option("--address", help="Address of this controller that hosts reach.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help=f"{DEFAULT_PORT}, or with --ssh that of the hosts.",
)
@click.option(
    "--ssh", "inventory", type=click.Path(path_type=Path), metavar="INVENTORY",
    help="Its hosts need not reach this controller: each has the bundle on its loopback, by ssh.",
)  # fmt: skip
@_key_option
def serve(
    folders: tuple[Path, ...],
    address: str | None,
    port: int | None,
    inventory: Path | None,
    public_key: Path | None,
) -> None:
    """Prove every file of a bundle, then serve them to hosts, read-only, until interrupted.

    Of several bundles the last one that has a file counts: name a bundle, then those --since it.
    Headers of models go to this controller's cache, so that plans need no hub. Hosts reach the
    server at --address, or by an ssh connection from here with --ssh.
    """
    if (address is None) == (inventory is None):
        what = "hosts reach it at an address of this controller, or by ssh"
        step = "add --address ADDRESS, or --ssh INVENTORY"
        raise CorralError("corral bundle serve", what, step)
    wanted = _ways(inventory)
    at = (address or "127.0.0.1", port or (wanted[0].port if wanted else DEFAULT_PORT))
    opened = [Opened(folder, public_key=public_key) for folder in folders]
    refuse_other_base(opened)
    proved = [prove(one, echo, again=False) for one in opened]
    for one in opened:
        take_headers(one)
    ended = threading.Event()
    with ExitStack() as stack:
        for name in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(name, lambda *_: ended.set())
            stack.callback(signal.signal, name, before)
        routes = Routes(list(zip(opened, proved, strict=True)))
        url = stack.enter_context(serving(*at, routes, echo))
        where = f'"bundle": {{"folder": "{folders[-1].resolve()}", "url": "{url}"}}'
        echo(f"serving {', '.join(map(str, folders))} at {url}; ends with ^C")
        echo(f"  in the inventory: {where}")
        stack.enter_context(leading_here(wanted, urlsplit(url).netloc, echo))
        ended.wait()


def _ways(inventory: Path | None) -> list[Way]:
    """Hosts of an inventory that are led here by ssh."""
    if inventory is None:
        return []
    import_from_the_checkout()
    (found,) = inventories(inventory).read
    print_mistakes(found.mistakes.values())
    return ways(found.hosts, where=str(inventory))


def _sources(pairs: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for pair in pairs:
        platform, sign, file = pair.partition("=")
        if not sign or not platform or not file:
            what = "is not PLATFORM=FILE"
            step = "such as --sources ubuntu-24.04=ubuntu.sources"
            raise CorralError(f"--sources {pair}", what, step)
        found[platform] = Path(file)
    return found


def _summary(found: Bundle) -> str:
    kinds = {
        "weights": "files of weights", "archives": "files of engine releases",
        "sources": "commits of engines to build",
        "images": "images", "wheels": "wheels", "apt": "packages and indexes",
    }  # fmt: skip
    counts = [f"{len(files)} {what}" for kind, what in kinds.items() if (files := found.of(kind))]
    added = f", on top of the bundle of {found.since.at}" if found.since else ""
    hosts = counted(len(found.hosts), "host")
    return (
        f"bundle of {found.at} for {hosts} ({', '.join(found.platforms)})"
        f"{added}: {counted(len(found.files), 'file')}, {found.size_bytes / _MIB:,.0f} MiB"
        f"{', ' if counts else ''}{', '.join(counts)}"
    )
