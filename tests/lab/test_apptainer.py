"""Instances in images, on two hosts of Debian 13: made, shipped, served, changed, broken, repaired.

The release in the image is the one that Debian 12 has, which runs on Debian 13, too: compiling
takes longer than all of this.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from corral.store.engine_archives import ArchiveStore
from lab import wheel_index
from tests.lab.extra_host import remove_host
from tests.lab.test_bundle import PORT, cut, served
from tests.lab.test_third_engine import added, engine_added, wheels_served
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import wait_for
from tests.lab.workspace import Done, Workspace

MAKER, RECEIVER = HOSTS = ("lab-4", "lab-5")
NUMBERS = (5, 4)
INVENTORY = "inventories/images.py"
LAB = ("-i", INVENTORY)
UNIT = "corral-chat"
SERVERS = """from lab import engine_source
from lab.hosts import connection_data, platform
from lab.layout import this_lab

_lab = this_lab()
_shared = {"hub_url": _lab.hub_url, "engine_sources": engine_source.urls(_lab)}
_shared |= {"keys_folder": str(_lab.keys), "archives_folder": str(_lab.archives)}
_chat = {"name": "chat", "profile": "tiny-chat", "port": 8001}
_own = []


def _host(n, how):
    one = [{**_chat, "activation": how}, *(_own if n == 4 else [])]
    data = {**connection_data(_lab, n), **_shared, "platform": platform(_lab, n)}
    return f"lab-{n}", {**data, "runtime": "apptainer", "instances": one}


servers = [_host(4, "in-place"), _host(5, "side-by-side")]
"""
OWN = '_own = [{"name": "own", "profile": "tiny-chat", "port": 8003, "engine": "site"}]'
ECHO = '_own = [{"name": "echo", "profile": "echo", "port": 8004}]'
SITE = """kind = "llama.cpp"

[image]
source = "{source}"
program = "{program}"
sha256 = "{sha256}"
"""
PROFILE = "catalog/profiles/tiny-chat.toml"
PLANNED = (
    "import json, sys; from pathlib import Path;"
    "from corral.inventory.hosts import load_inventory;"
    "from corral.planning.load import load_planner; from corral.project import project_root;"
    "planner, hosts = load_planner(project_root()), load_inventory(Path(sys.argv[1]));"
    "print(planner.releases(hosts[0])[0].model_dump_json())"
)
SQUASH = """
import json, sys
from pathlib import Path
sys.path.insert(0, "/usr/local/lib/corral/corral_host.pyz")
from corral_host.release import image
image.squash(json.load(sys.stdin), Path("/var/tmp/again/image.squashfs"))
"""


@pytest.fixture(scope="module")
def lab(deployed_once: Workspace) -> Iterator[Workspace]:
    """Two more hosts, of Debian 13 with apptainer."""
    up = deployed_once.corral(
        "lab", "up", "--hosts", "5", "--provisioned", "--platform", "debian-13"
    )
    assert up.returncode == 0, said(up)
    with ExitStack() as stack:
        for n in NUMBERS:
            stack.callback(remove_host, deployed_once, n)
        stack.enter_context(added(deployed_once, INVENTORY, SERVERS))
        yield deployed_once


def planned(lab: Workspace) -> dict[str, Any]:
    """The image, as a plan."""
    done = subprocess.run(
        [sys.executable, "-c", PLANNED, INVENTORY], cwd=lab.path, check=True, capture_output=True,
        text=True, env={"PYTHONPATH": str(lab.path), "HOME": str(Path.home())},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def put_release(lab: Workspace, host: str) -> None:
    """Install what Debian 12 has as the release that the image is made of."""
    inside = planned(lab)["artifact"]["of"]
    store = ArchiveStore(lab.layout.archives)
    archive = next(one for one in store.all() if one.engine == "llama.cpp")
    text = store.path(archive).read_bytes()
    script = (
        f"mkdir -p {inside['folder']} && tar --zstd -C {inside['folder']} -xf - && "
        f"sed -i 's/{archive.key}/{inside['key']}/' {inside['folder']}/manifest.json"
    )
    command = ["ssh", "-F", str(lab.layout.ssh_config), host, script]
    subprocess.run(command, input=text, check=True, capture_output=True)


def deploy(lab: Workspace) -> Done:
    return lab.deploy(inventory=INVENTORY)


@pytest.fixture(scope="module")
def serving(lab: Workspace) -> Workspace:
    """Both serve after one deploy: one makes the image, the other gets it."""
    put_release(lab, MAKER)
    done = deploy(lab)
    assert done.returncode == 0, said(done)
    return lab


def image(lab: Workspace) -> str:
    return f"{planned(lab)['folder']}/image.squashfs"


def digest(lab: Workspace, host: str, path: str) -> str:
    return lab.on(host, f"sha256sum < {path}").split()[0]


def verify(lab: Workspace, host: str) -> Done:
    return lab.corral("verify", host, *LAB)


def health(lab: Workspace, host: str, port: int = 8001) -> bool:
    asked = f"curl --silent --max-time 5 http://127.0.0.1:{port}/health"
    return '"ok"' in lab.try_on(host, asked).stdout


def processes(lab: Workspace, host: str) -> dict[str, int]:
    """Program -> pid, of the unit."""
    group = lab.on(host, f"systemctl show {UNIT} -P ControlGroup")
    script = (
        f'for pid in $(cat /sys/fs/cgroup{group}/cgroup.procs); do echo "$pid $(basename '
        '"$(readlink /proc/$pid/exe)")"; done'
    )
    rows = [line.split() for line in lab.on(host, script).splitlines()]
    return {row[1]: int(row[0]) for row in reversed(rows) if len(row) == 2}


def restarts(lab: Workspace, host: str) -> int:
    return int(lab.on(host, f"systemctl show {UNIT} -P NRestarts"))


def answers_again(lab: Workspace, host: str) -> None:
    wait_for(lambda: health(lab, host), f"{host} answers")


def test_both_hosts_serve_from_the_same_image(serving: Workspace) -> None:
    found = {digest(serving, host, image(serving)) for host in HOSTS}
    assert len(found) == 1
    for host in HOSTS:
        assert processes(serving, host).keys() >= {"starter", "squashfuse_ll", "llama-server"}
    done = verify(serving, MAKER)
    assert done.returncode == 0, said(done)
    for check in ("image", "process", "environment", "keys", "completion"):
        assert check in done.stdout
    status = serving.corral("status", MAKER, *LAB)
    assert "127.0.0.1:8001" in said(status)


def test_the_same_release_gives_the_same_bytes_on_the_other_host(serving: Workspace) -> None:
    put_release(serving, RECEIVER)
    plan = json.dumps(planned(serving))
    script = f"mkdir -p /var/tmp/again && cat > /root/squash.py <<'E'\n{SQUASH}\nE\n"
    serving.on(RECEIVER, f"{script} python3 /root/squash.py <<'E'\n{plan}\nE")
    again = digest(serving, RECEIVER, "/var/tmp/again/image.squashfs")
    assert again == digest(serving, MAKER, image(serving))
    serving.on(RECEIVER, f"rm -r /var/tmp/again {planned(serving)['artifact']['of']['folder']}")


def test_programs_in_it_find_the_drivers_libraries(serving: Workspace) -> None:
    """A stand-in of the driver's: --nv takes what the loader of the host knows by that name."""
    library = "/usr/local/lib/libcuda.so.1"
    made = f"echo 'int stand_in;' | gcc -shared -x c - -Wl,-soname,libcuda.so.1 -o {library}"
    asked = "apptainer --quiet exec --no-privs --containall --cleanenv --no-home {nv} --env"
    script = f"{asked} LD_PRELOAD=libcuda.so.1 {image(serving)} /usr/bin/getconf PATH 2>&1"
    serving.on(MAKER, f"{made} && ldconfig")
    try:
        found = serving.on(MAKER, script.format(nv="--nv"))
        missing = serving.on(MAKER, script.format(nv=""))
    finally:
        serving.on(MAKER, f"rm {library} && ldconfig")
    assert "cannot be preloaded" in missing
    assert "cannot be preloaded" not in found, found
    assert verify(serving, MAKER).returncode == 0


def test_a_deploy_without_a_change_restarts_nothing(serving: Workspace) -> None:
    pids = [serving.pid(host, "chat") for host in HOSTS]
    again = deploy(serving)
    assert again.returncode == 0, said(again)
    assert [serving.pid(host, "chat") for host in HOSTS] == pids


def test_its_unit_is_closed(serving: Workspace) -> None:
    rated = serving.on(MAKER, f"systemd-analyze security {UNIT} --no-pager | tail -n 1")
    level = float(rated.partition("level for ")[2].split(":")[1].split()[0])
    assert level <= 2.0, rated


def test_it_is_changed_in_place_and_side_by_side(serving: Workspace) -> None:
    with serving.edited(PROFILE, "slots = 2", "slots = 1"):
        done = deploy(serving)
        assert done.returncode == 0, said(done)
    for host in HOSTS:
        server = processes(serving, host)["llama-server"]
        arguments = serving.on(host, f"tr '\\0' ' ' < /proc/{server}/cmdline")
        assert "--parallel 1" in arguments
        assert "--port 8001" in arguments
    history = said(serving.corral("history", *HOSTS, *LAB))
    assert "side by side" in history
    assert "in place" in history


def test_and_reverted(serving: Workspace) -> None:
    done = serving.corral("revert", "chat", *LAB)
    assert done.returncode == 0, said(done)
    for host in HOSTS:
        server = processes(serving, host)["llama-server"]
        assert "--parallel 2" in serving.on(host, f"tr '\\0' ' ' < /proc/{server}/cmdline")


def test_a_stop_lets_a_stream_end(serving: Workspace) -> None:
    body = '{"prompt": "a", "max_tokens": 300, "stream": true, "ignore_eos": true}'
    header = "sed -n '/^[^#]/{s/^/Authorization: Bearer /p;q}' /etc/corral/keys/chat"
    asked = (
        f"{header} | curl --silent --no-buffer --max-time 120 --header @- "
        f"--data '{body}' http://127.0.0.1:8001/v1/completions"
    )
    serving.on(MAKER, f"cat > /root/ask.sh <<'E'\n{asked}\nE")
    serving.on(MAKER, "nohup sh /root/ask.sh > /root/stream 2>&1 < /dev/null &")
    wait_for(lambda: serving.try_on(MAKER, "test -s /root/stream").returncode == 0, "it streams")
    stopped = serving.corral("stop", f"{MAKER}/chat", *LAB)
    assert stopped.returncode == 0, said(stopped)
    streamed = serving.on(MAKER, "cat /root/stream")
    assert streamed.splitlines()[-1] == "data: [DONE]"
    assert serving.on(MAKER, f"systemctl show {UNIT} -P Result") == "success"
    started = serving.corral("start", f"{MAKER}/chat", *LAB)
    assert started.returncode == 0, said(started)
    answers_again(serving, MAKER)


def test_a_killed_starter_is_started_again(serving: Workspace) -> None:
    before = restarts(serving, MAKER)
    serving.on(MAKER, f"kill -9 {serving.pid(MAKER, 'chat')}")
    wait_for(lambda: restarts(serving, MAKER) > before, "systemd starts it again")
    answers_again(serving, MAKER)


def test_a_killed_squashfuse_is_noticed(serving: Workspace) -> None:
    before = restarts(serving, MAKER)
    serving.on(MAKER, f"kill -9 {processes(serving, MAKER)['squashfuse_ll']}")
    done = verify(serving, MAKER)
    # A server that needed a page of the image meanwhile has ended, and verify says that instead.
    if "squashfuse, which" not in said(done):
        wait_for(lambda: restarts(serving, MAKER) > before, "systemd starts the server again")
    serving.on(MAKER, f"systemctl restart {UNIT}")
    answers_again(serving, MAKER)


def test_a_flipped_bit_and_a_replaced_image_are_noticed_and_repaired(serving: Workspace) -> None:
    path, pids = image(serving), [serving.pid(host, "chat") for host in HOSTS]
    planned_digest = digest(serving, MAKER, path)
    flip = (
        "import sys; f = open(sys.argv[1], 'r+b'); f.seek(9_000_000); b = f.read(1);"
        " f.seek(9_000_000); f.write(bytes([b[0] ^ 1]))"
    )
    serving.on(RECEIVER, f'python3 -c "{flip}" {path}')
    serving.on(MAKER, f"cp {path} {path}.new && mv {path}.new {path}")
    for host, why in ((RECEIVER, "sha256"), (MAKER, "replaced since the server started")):
        done = verify(serving, host)
        assert done.returncode != 0
        assert why in said(done)
    repaired = deploy(serving)
    assert repaired.returncode == 0, said(repaired)
    assert all(serving.pid(host, "chat") != pid for host, pid in zip(HOSTS, pids, strict=True))
    for host in HOSTS:
        assert digest(serving, host, path) == planned_digest
        assert verify(serving, host).returncode == 0


def test_preflight_names_what_the_host_does_not_allow(serving: Workspace) -> None:
    """Forbidden by a file in the place of the setting, which all hosts of this machine share."""
    setting = "/proc/sys/user/max_user_namespaces"
    serving.on(MAKER, f"echo 0 > /root/none && mount --bind /root/none {setting}")
    try:
        refused = deploy(serving)
    finally:
        serving.on(MAKER, f"umount {setting}")
    assert_refused(refused, "user.max_user_namespaces")
    serving.on(MAKER, "mv /dev/fuse /dev/fuse.away")
    try:
        refused = deploy(serving)
        assert_refused(refused, "/dev/fuse is missing", "unpack_images")
    finally:
        serving.on(MAKER, "mv /dev/fuse.away /dev/fuse")


@pytest.fixture
def site_engine(serving: Workspace) -> Iterator[Callable[[str], None]]:
    """Add and lock an engine that is a copy of the image, from a source; both are undone."""
    entry, lock = serving.path / "catalog/engines/site.toml", serving.path / "corral.lock"
    before = lock.read_text()
    program = f"{planned(serving)['folder']}/bin/llama-server"
    sha256 = digest(serving, MAKER, image(serving))

    def add(source: str) -> None:
        entry.write_text(SITE.format(source=source, program=program, sha256=sha256))
        locked = serving.corral("lock", INVENTORY)
        assert locked.returncode == 0, said(locked)

    yield add
    entry.unlink(missing_ok=True)
    lock.write_text(before)


def test_an_image_of_the_site_serves_without_fuse(
    serving: Workspace, site_engine: Callable[[str], None]
) -> None:
    source = "/srv/site.squashfs"
    serving.on(MAKER, f"cp {image(serving)} {source} && mv /dev/fuse /dev/fuse.away")
    try:
        with (
            serving.edited(INVENTORY, "_own = []", OWN),
            serving.edited(INVENTORY, '"runtime":', '"unpack_images": n == 4, "runtime":'),
        ):
            site_engine(source)
            done = deploy(serving)
            assert done.returncode == 0, said(done)
            assert health(serving, MAKER, 8003)
            assert "squashfuse_ll" not in processes(serving, MAKER)
            done = verify(serving, MAKER)
            assert done.returncode == 0, said(done)
            serving.on(MAKER, "systemctl disable --now corral-own")
    finally:
        serving.on(MAKER, "mv /dev/fuse.away /dev/fuse")


def test_an_image_of_the_site_comes_from_a_bundle(
    serving: Workspace, site_engine: Callable[[str], None], tmp_path: Path
) -> None:
    """The site's server has ended, and the host reaches no mirror."""
    files, bundle = tmp_path / "files", tmp_path / "bundle"
    address = str(serving.layout.controller_address)
    files.mkdir()
    copy = ["ssh", "-F", str(serving.layout.ssh_config), MAKER, f"cat {image(serving)}"]
    with (files / "site.squashfs").open("wb") as file:
        subprocess.run(copy, stdout=file, check=True)
    with (
        serving.edited(INVENTORY, "_own = []", OWN),
        wheel_index.serving(files, address) as site,
    ):
        site_engine(f"http://{address}:{site.server_port}/site.squashfs")
        sources = f"debian-13={package_sources(serving, tmp_path)}"
        written = serving.corral("bundle", "-o", str(bundle), INVENTORY, "--sources", sources)
        assert written.returncode == 0, said(written)
    # What another test installed.
    serving.on(MAKER, "rm -rf /srv/site.squashfs /opt/corral/engines/site")
    named = {"folder": str(bundle), "url": f"http://{address}:{PORT}"}
    with (
        serving.edited(INVENTORY, "_own = []", f"{OWN}\n_shared['bundle'] = {named!r}"),
        cut(serving),
        served(serving, tmp_path / "log", bundle),
    ):
        done = deploy(serving)
        assert done.returncode == 0, said(done)
        assert health(serving, MAKER, 8003)
    serving.on(MAKER, "systemctl disable --now corral-own")


def package_sources(lab: Workspace, folder: Path) -> Path:
    """Those of the host without sid: its pins hold that back, and a bundle has none of them."""
    stanzas = lab.on(MAKER, "cat /etc/apt/sources.list.d/*.sources").split("\n\n")
    path = folder / "debian-13.sources"
    path.write_text("\n\n".join(one for one in stanzas if "Suites: sid" not in one))
    return path


def test_a_release_that_this_distribution_made_serves_in_an_image(
    serving: Workspace, tmp_path: Path
) -> None:
    """A Python environment: its interpreter, with what that loads, is in the image as well."""
    with (
        wheels_served(serving, tmp_path) as index,
        engine_added(serving, index),
        serving.edited(INVENTORY, "_own = []", ECHO),
    ):
        locked = serving.corral("lock", INVENTORY)
        assert locked.returncode == 0, said(locked)
        done = deploy(serving)
        assert done.returncode == 0, said(done)
        assert health(serving, MAKER, 8004)
        # The release that the image was made of may still be beside it.
        beside = "$(dirname /opt/corral/engines/echo/*/image.squashfs)"
        made = json.loads(serving.on(MAKER, f"cat {beside}/manifest.json"))
        assert made["artifact"] == "made-image"
        assert "python3.13" in made["found"]["packages"]
        done = serving.corral("verify", f"{MAKER}/echo", *LAB)
        assert done.returncode == 0, said(done)
        serving.on(MAKER, "systemctl disable --now corral-echo")


def user_with_script(lab: Workspace, user: str) -> None:
    """A user with run.sh of the second host's server, on a port of its own, and with a key."""
    done = lab.corral("export", f"{RECEIVER}/chat", "--as", "script", *LAB)
    assert done.returncode == 0, said(done)
    script = done.stdout.replace("port=8001", "port=8011").replace("--port 8001", "--port 8011")
    lab.on(RECEIVER, f"useradd --create-home --shell /bin/bash {user}")
    lab.on(RECEIVER, f"cat > /home/{user}/run.sh <<'SCRIPT'\n{script}\nSCRIPT")
    lab.on(RECEIVER, f"echo a-key-of-twenty-characters-or-more > /home/{user}/keys")


def assert_starts(lab: Workspace, run: Callable[[str], Done]) -> None:
    started = run("start")
    assert started.returncode == 0, said(started)
    wait_for(lambda: health(lab, RECEIVER, 8011), "it answers")
    status = run("status")
    assert status.returncode == 0
    assert "listens on 127.0.0.1:8011" in status.stdout


def assert_stops(lab: Workspace, run: Callable[[str], Done]) -> None:
    stopped = run("stop")
    assert stopped.returncode == 0, said(stopped)
    assert run("status").returncode == 3
    assert not health(lab, RECEIVER, 8011)


def test_a_user_without_root_runs_the_exported_script(serving: Workspace) -> None:
    """It needs apptainer alone, and goes on when the session that started it has ended."""
    user_with_script(serving, "ada")

    def run(command: str) -> Done:
        return serving.try_on(
            RECEIVER,
            f"su - ada -c 'CORRAL_KEYS=/home/ada/keys bash run.sh {command}'",
        )

    assert_starts(serving, run)
    assert_stops(serving, run)


def test_a_users_systemd_keeps_it_after_the_last_logout(serving: Workspace) -> None:
    """Each command has a session of logind, which libpam-systemd makes; minimal hosts lack it."""
    install = "apt-get update --quiet=2 && apt-get install --yes --quiet=2 libpam-systemd"
    serving.on(RECEIVER, f"export DEBIAN_FRONTEND=noninteractive; {install}")
    user_with_script(serving, "grace")
    serving.on(RECEIVER, "loginctl enable-linger grace")

    def run(command: str) -> Done:
        session = "systemd-run --quiet --pipe --wait --uid=grace --property=PAMName=login"
        keys = "--setenv=CORRAL_KEYS=/home/grace/keys"
        return serving.try_on(RECEIVER, f"{session} {keys} bash /home/grace/run.sh {command}")

    assert_starts(serving, run)
    state = "loginctl show-user grace --property State --value"
    wait_for(lambda: serving.on(RECEIVER, state) == "lingering", "the last session has ended")
    server = serving.on(RECEIVER, "pgrep --uid grace llama-server")
    assert "/corral-chat.service" in serving.on(RECEIVER, f"cat /proc/{server}/cgroup")
    assert health(serving, RECEIVER, 8011)
    assert_stops(serving, run)
