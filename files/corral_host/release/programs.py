"""Start the programs of a release in a minimal environment, like a unit's."""

import contextlib
import subprocess
from functools import partial
from pathlib import Path

from corral_shared.text import printable_line

from corral_host import engines
from corral_host.system.commands import PROGRAMS, HostError, say
from corral_host.system.unprivileged import as_owner_of, home_of_nobody

DRIVER = "libcuda.so.1"


@contextlib.contextmanager
def bare_environment(toolkit=(), release=None):
    """A minimal environment, with a home whose owner runs the programs and owns nothing else.

    + toolkit: folders in which a builder without a driver has the toolkit's stub of it
    """
    own = engines.of(release or {}).environment
    is_image = bool((release or {}).get("artifact", {}).get("image"))
    # A container program must know the name of its user.
    with home_of_nobody(named=is_image) as home:
        environment = {"PATH": PROGRAMS, "HOME": home, "LC_ALL": "C", **own}
        stand_in = next((f / "stubs" / "libcuda.so" for f in toolkit), None)
        if stand_in and stand_in.exists() and not driver_is_here():
            (Path(home) / DRIVER).symlink_to(stand_in)
            environment["LD_LIBRARY_PATH"] = home
        yield environment


def driver_is_here():
    done = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True)
    return f"{DRIVER} " in done.stdout


def ask(program, arguments, environment, seconds=60):
    """Output of a program, and its exit code; None if it does not end in time."""
    try:
        done = subprocess.run(
            [str(program), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=environment, cwd=environment["HOME"],
            timeout=seconds, text=True, errors="replace", **as_owner_of(environment["HOME"]),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(errors="replace"), None
    return done.stdout, done.returncode


def prove_version(release, folder, environment):
    """Raises HostError unless the server of ``folder`` is the planned one."""
    engine, program = engines.of(release), engines.of(release).server(folder)
    run, artifact = asking(release, folder, environment), release.get("artifact", {})
    if artifact.get("kind") == "own-image":
        prove_it_runs(release, run)
    else:
        engine.prove_version(program, artifact.get("of") or release, run)


def prove_it_runs(release, run):
    """Of an image of the site's own no commit is planned, but its bytes."""
    said, code = run(["--version"])
    if code != 0:
        raise HostError(
            f"{release['artifact']['program']} in {release['artifact']['source']} does not run: "
            f"{printable_line(said)[-500:]}",
            "correct program of the image in the catalog, run the deploy again",
        )
    say(f"its version: {printable_line(said)[:200]}")


def flags(release, folder, environment):
    """Every flag that the server of ``folder`` accepts, sorted."""
    engine, hidden = engines.of(release), {**environment, "CUDA_VISIBLE_DEVICES": ""}
    return engine.flags(engine.server(folder), asking(release, folder, hidden))


def devices(release, folder, environment, log):
    """GPUs that the server of ``folder`` finds; ``log``: of its smoke run."""
    engine, program = engines.of(release), engines.of(release).server(folder)
    return engine.devices(program, asking(release, folder, environment), log)


def asking(release, folder, environment):
    """A function that runs the server of ``folder`` with arguments; see ``ask``."""
    engine = engines.of(release)
    return partial(
        ask, engine.server(folder), environment=environment, seconds=engine.program_seconds
    )
