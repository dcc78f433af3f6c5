"""A minimal root file system of this host's distribution: files of installed packages, proved."""

import os
import shutil
import stat
import subprocess

from corral_shared.text import printable_line

from corral_host.system.commands import HostError, output

# Parts of packages that no program of a release reads.
LEFT_OUT = ("/etc/", "/var/", "/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/",
            "/usr/share/lintian/", "/usr/share/bug/", "/boot/")  # fmt: skip
FIELDS = "${Package}\\t${Version}\\t${Pre-Depends}, ${Depends}\\t${db:Status-Status}\\n"
# Links of a merged /usr (Debian 12 and later, Ubuntu 22.04 and later).
MERGED = ("bin", "sbin", "lib", "lib64")
# Where a container program mounts something; without them it needs an overlay.
FOLDERS = ("dev", "proc", "sys", "tmp", "run", "var/tmp", "etc", "home", "root", "models",
           ".singularity.d/env", ".singularity.d/libs")  # fmt: skip
# Files of accounts and names, which the container program fills in, and one that it reads.
TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/hosts": "",
    "etc/resolv.conf": "",
    "etc/localtime": "",
    # What `apptainer build` writes to each image: the container program reads this file at each
    # start, and --nv puts the driver's libraries into that folder.
    ".singularity.d/env/99-base.sh": (
        'LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"\n'
        "export LD_LIBRARY_PATH\n"
    ),
}


def make(root, names):
    """Make the root of the packages and of those that they depend on; returns name -> version."""
    packages = with_dependencies(names)
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for name, text in TEXTS.items():
        (root / name).write_text(text)
    for name in sorted(packages):
        refuse_changed(name)
        for path in files(name):
            copy(path, root)
    return packages


def with_dependencies(names):
    """Installed packages, name -> version. Raises HostError for one that is missing."""
    found, waiting, known = {}, list(names), installed()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in known:
            raise HostError(
                f"package {name}, whose files an image needs, is not installed",
                f"apt-get install {name}, run the deploy again",
            )
        found[name], depends = known[name]
        for group in depends.split(","):
            named = [one.split()[0].split(":")[0] for one in group.split("|") if one.strip()]
            # What is not a package itself is provided by another, whose files no program names.
            waiting += [one for one in named if one in known][:1]
    return dict(sorted(found.items()))


def installed():
    """Name -> version and dependencies, of all packages."""
    found = {}
    for line in output("dpkg-query", "--show", f"--showformat={FIELDS}").splitlines():
        name, version, depends, status = line.split("\t")
        if status == "installed":
            found[name] = version, depends
    return found


def files(name):
    """Files and links of a package, apart from what no program reads."""
    listed = output("dpkg-query", "--listfiles", name).splitlines()
    for path in sorted(line for line in listed if line.startswith("/")):
        if path.startswith(LEFT_OUT) or not os.path.lexists(path):
            continue
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            yield path


def copy(path, root):
    top, _, rest = path[1:].partition("/")
    merged = top in MERGED and rest
    target = root / ("usr" if merged else "") / path[1:]
    if top in MERGED and not rest:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or target.exists():
        return
    shutil.copy2(path, target, follow_symlinks=False)


def refuse_changed(name):
    """Raises HostError if a file of the package differs from what its package says."""
    done = subprocess.run(
        ["dpkg", "--verify", name], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
    )  # fmt: skip
    changed = [line.split()[-1] for line in done.stdout.splitlines() if "5" in line.split()[0]]
    wrong = [path for path in changed if not path.startswith(LEFT_OUT)]
    if wrong:
        raise HostError(
            f"{printable_line(', '.join(wrong))}: not as in package {name}",
            f"apt-get install --reinstall {name}, run the deploy again",
        )


def normalize(root):
    """Modes that do not depend on this host; no program in an image has special ones."""
    for path in [root, *root.rglob("*")]:
        if path.is_symlink():
            continue
        runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        path.chmod(0o755 if runs else 0o644)
