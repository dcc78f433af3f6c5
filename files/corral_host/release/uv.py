"""uv on a host: pip installs the pinned one, and it installs the distributions of a release.

Both check each file against its locked digest before it is unpacked, and neither runs code of it.
What was fetched stays after a failure, so that the next attempt goes on from there.
"""

import re
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

from corral_shared.requirements import pins

from corral_host.release.pip_settings import OWN, settings, uv_toml
from corral_host.system.commands import PROGRAMS, HostError, say
from corral_host.system.unprivileged import as_owner_of, give

INTERPRETER = "/usr/bin/python3"
SILENT_SECONDS = 60
PROGRESS_SECONDS = 10
REASON_LINES = 8
KEPT = "run the same deploy again; what was fetched is kept"
REACH = (
    "check that this host reaches it, or name a mirror in engine_sources of the inventory, then "
    f"{KEPT}"
)
# What uv or pip says of a fault -> what is wrong, and the next step; the first that fits.
FAULTS = (
    (
        re.compile(r"No space left on device|os error 28|Errno 28"),
        "the disk is full",
        f"free space there, {KEPT}",
    ),
    (
        re.compile(r"Hash mismatch|DO NOT MATCH THE HASHES|Failed to extract archive"),
        "a distribution has other bytes than the lock names",
        "check the index, or the mirror in engine_sources, that it came from; if the change is "
        "meant, `corral lock --update ENGINE`, then run the deploy again",
    ),
    (
        re.compile(
            r"Failed to fetch|error sending request|Connection refused|NewConnectionError"
            r"|timed out|dns error|HTTP status|Could not fetch URL|HTTP error|returned a \d{3}"
        ),
        "the index cannot be reached, or refuses",
        REACH,
    ),
    (
        re.compile(r"not found|No solution found|No matching distribution|no wheels|unsatisf"),
        "the index lacks a locked distribution for this platform",
        "name an index that has it in engine_sources of the inventory, or `corral lock` again for "
        "another version, then run the deploy again",
    ),
    (
        re.compile(r""),
        "it failed",
        "see the reason above, then run the same deploy again",
    ),
)

# A file is not compared with its module again: nothing changes in a release, and times are not kept
# in archives. Some distributions have templates that are no modules; those are left out.
COMPILE = """
import compileall, py_compile, sys
target, final = sys.argv[1:]
compileall.compile_dir(
    target + "/lib", quiet=2, workers=0, stripdir=target, prependdir=final,
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
"""


class Uv:
    """uv for one release, in a folder that the owner of ``home`` can write to.

    + folder: for the program, the cache and temporary files, on the disk of the releases
    """

    def __init__(self, release, folder, home):
        self.release, self.artifact = release, release["artifact"]
        self.folder, self.home = folder, home
        self.program = folder / "tool" / "bin" / "uv"
        self.temporary = folder / "tmp"

    def version(self):
        return pins(self.artifact["installer"])["uv"]

    def ensure(self):
        """Install the pinned uv, unless an earlier attempt did. Raises HostError."""
        if self.said_version() == self.version():
            return
        say(f"installing uv {self.version()}")
        tool = self.folder / "tool"
        self.run([INTERPRETER, "-I", "-m", "venv", "--clear", tool])
        wanted = self.written("uv.txt", self.artifact["installer"] + "\n")
        self.run([
            *self.pip(), "install", "--no-input", "--no-deps", "--disable-pip-version-check",
            "--only-binary", ":all:", "--require-hashes", "--progress-bar", "off",
            *self.sources("--index-url"), *self.trusted(), "--requirement", wanted,
        ])  # fmt: skip

    def pip(self):
        return [str(self.folder / "tool" / "bin" / "python"), "-I", "-m", "pip"]

    def said_version(self):
        if not self.program.is_file():
            return None
        done = subprocess.run(
            [str(self.program), "--version"], capture_output=True, text=True,
            env=self.environment(), **as_owner_of(self.home),
        )  # fmt: skip
        return done.stdout.split()[1] if done.returncode == 0 else None

    def install(self, target):
        """Make an environment at ``target`` with everything that is locked. Raises HostError.

        Its scripts find its Python wherever the environment is moved to.
        """
        wanted = self.written("requirements.txt", self.artifact["requirements"])
        python = ["--python", INTERPRETER]
        self.run([self.program, "venv", "--relocatable", "--allow-existing", *python, target])
        self.run([
            self.program, *self.of_pip(), "pip", "install",
            "--python", target / "bin" / "python", "--require-hashes", "--no-deps",
            "--only-binary", ":all:", "--link-mode", "hardlink",
            *self.sources("--default-index"), "--requirement", wanted,
        ])  # fmt: skip

    def compile(self, target, final):
        """Compile all modules for ``final``, where the environment will be; no code of them runs.

        A server cannot write there, and would compile thousands of modules at each start.
        """
        say("compiling modules")
        self.run([INTERPRETER, "-I", "-S", "-c", COMPILE, target, final])

    def sources(self, flag):
        """Arguments for the index; none: those that the host itself is configured for."""
        index, folder = self.artifact["index"], self.artifact["find_links"]
        arguments = [flag, index] if index else []
        if folder:
            arguments += ["--find-links", folder, *([] if index else ["--no-index"])]
        return arguments

    def of_pip(self):
        """Arguments for what the host's pip is configured for, where the plan names no source."""
        if self.artifact["index"] or self.artifact["find_links"] or Path(OWN).exists():
            return []
        # Its output is not logged: addresses may have passwords.
        done = subprocess.run(
            [*self.pip(), "config", "list"], env=self.environment(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, **as_owner_of(self.home),
        )  # fmt: skip
        if done.returncode != 0:
            raise self.fault("pip", done.stderr.splitlines(), done.returncode)
        text = uv_toml(settings(done.stdout))
        return ["--config-file", self.written("uv.toml", text)] if text else []

    def trusted(self):
        """Arguments of pip for addresses without TLS; the hashes prove what comes from there."""
        urls = [url for url in (self.artifact["index"], self.artifact["find_links"]) if url]
        plain = [urlsplit(url).netloc for url in urls if url.startswith("http://")]
        return [part for host in plain for part in ("--trusted-host", host)]

    def written(self, name, text):
        path = Path(self.home) / name
        path.write_text(text)
        give(path, self.home)
        return path

    def environment(self):
        return {
            "PATH": PROGRAMS, "HOME": str(self.home), "LANG": "C.UTF-8",
            "TMPDIR": str(self.temporary), "PIP_CACHE_DIR": str(self.folder / "pip"),
            "UV_CACHE_DIR": str(self.folder / "cache"), "UV_PYTHON_DOWNLOADS": "never",
            "UV_HTTP_TIMEOUT": str(SILENT_SECONDS), "UV_NO_PROGRESS": "1", "NO_COLOR": "1",
        }  # fmt: skip

    def run(self, command):
        """Run a step as the home's owner, with its output and its progress in the log."""
        lines = []
        process = subprocess.Popen(
            [str(part) for part in command], env=self.environment(), cwd=self.home,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", **as_owner_of(self.home),
        )  # fmt: skip
        with shown_progress(self.folder):
            for line in process.stdout:
                say(line.rstrip("\n"))
                lines.append(line.strip())
            code = process.wait()
        if code != 0:
            raise self.fault(Path(str(command[0])).name, lines, code)

    def fault(self, program, lines, code):
        reason = "\n".join([line for line in lines if line][-REASON_LINES:])
        reason = reason or f"it ended with exit code {code}"
        what, step = next((what, step) for sign, what, step in FAULTS if sign.search(reason))
        step = step.replace("ENGINE", self.release["engine"])
        where = f"{self.release['engine']} {self.release['key']}"
        return HostError(
            f"{where}: {program} cannot install it in {self.folder.parent}: {what}. Nothing was "
            f"installed:\n{reason}",
            step,
        )


class shown_progress:  # noqa: N801 - used like a function
    """Says how much of a release is unpacked, every few seconds, until the block ends."""

    def __init__(self, folder):
        self.folder, self.ended, self.shown = folder, threading.Event(), 0

    def __enter__(self):
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def watch(self):
        while not self.ended.wait(PROGRESS_SECONDS):
            found = size_mib(self.folder)
            if found > self.shown:
                say(f"{found} MiB are unpacked")
                self.shown = found


def size_mib(folder):
    """Size of all files of a folder that may change meanwhile."""
    done = subprocess.run(
        ["du", "--summarize", "--block-size=1M", str(folder)], capture_output=True, text=True
    )
    first = done.stdout.split()[:1]
    return int(first[0]) if first else 0
