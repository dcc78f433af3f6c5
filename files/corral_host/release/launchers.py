"""Launchers: programs of a release that is an image, run from outside as if they were files.

The server's own unit has the whole command line and does not use them; the helper's short runs do
(version, flags, smoke run, counting memory, benchmarks, perplexity).
"""

import shlex

from corral_host.system.modes import PROGRAM, open_folder

# The container has no folder of the host: those of paths in arguments are bound.
LAUNCHER = '''#!/usr/bin/python3 -I
"""Written by Corral: runs {shown} of the image beside this folder."""

import os
import shutil
import sys

def is_bound(path):
    return len(path) > 1 and os.path.isdir(path) and not set(":,") & set(path)


folder = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
programs = (os.environ.get("CORRAL_CONTAINER_PROGRAM", "apptainer"), "apptainer", "singularity")
found = next(filter(None, (shutil.which(name, path=search) for name in programs)), None)
if found is None:
    sys.exit("neither apptainer nor singularity is here. Next: install one of them")
mounts = os.access("/dev/fuse", os.W_OK) and shutil.which("squashfuse", path=search)
named = [word for word in sys.argv[1:] if word.startswith("/")]
# A model may be a link to where the weights are.
paths = [os.path.dirname(path) for word in named for path in (word, os.path.realpath(word))]
paths += [os.environ.get("HOME", ""), os.getcwd()]
binds = [path for path in dict.fromkeys(paths) if is_bound(path)]
argv = [found, "--quiet", "exec", "--no-home"]
# In a container of its own root lacks capabilities that would be asked for.
argv += ["--no-privs"] if os.geteuid() == 0 else []
# Where apptainer brings the other name, too, it is a link to it.
is_apptainer = "apptainer" in os.path.basename(os.path.realpath(found))
argv += [] if mounts else ["--unsquash" if is_apptainer else "--tmp-sandbox"]
argv += ["--nv"] if os.path.exists("/dev/nvidiactl") else []
argv += [word for path in binds for word in ("--bind", path)]
os.execv(found, [*argv, os.path.join(folder, "{image}"), "{program}", *sys.argv[1:]])
'''


def write_launchers(staging, image, programs):
    """Write one for each program; ``programs``: name -> path in the image."""
    open_folder(staging / "bin")
    for name, path in programs.items():
        launcher = staging / "bin" / name
        launcher.write_text(text(image, path))
        launcher.chmod(PROGRAM)


def text(image, path):
    return LAUNCHER.format(image=image, program=path, shown=shlex.quote(path))
