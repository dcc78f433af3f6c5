"""`corral verify` passes a healthy instance and fails every kind of unhealthy one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.observed import INSTANCES
from tests.lab.workspace import Workspace

LAB = ("-i", "inventories/lab.py")
EVERY_CHECK = {
    "process", "unit", "drop-ins", "environment", "enabled", "weights", "health", "keys",
    "model", "slots", "completion", "stream", "listening", "reserved", "metrics", "vram", "xid",
    "keys-stored", "keys-loaded",
}  # fmt: skip
# Checks that a running server passes without answering.
AT_ANY_RATE = {
    "process", "unit", "drop-ins", "environment", "enabled", "weights", "listening",
    "reserved", "vram", "xid", "keys-stored", "keys-loaded",
}  # fmt: skip
# Checks that pass without a server: files, boot, and the reserved port.
WITHOUT_SERVER = {"unit", "enabled", "weights", "reserved", "keys-stored"}
UNIT = "corral-tiny-gpu.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
RESTART = f"systemctl daemon-reload && systemctl reset-failed {UNIT} && systemctl restart {UNIT}"
WAIT = (
    "for _ in $(seq 300); do [ $(curl --silent --output /dev/null --write-out '%{http_code}' "
    "http://127.0.0.1:8001/health) = 200 ] && exit 0; sleep 0.1; done; exit 1"
)
# Answers 200 to everything, with an empty reply and a stream without an end.
IMPOSTOR = """
from http.server import BaseHTTPRequestHandler, HTTPServer

SILENCE = b'{"choices": [{"message": {"content": " "}}]}'

class Impostor(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"data: {}\\n\\n" * 3 if b'"stream": true' in asked else SILENCE)

    do_POST = do_GET

HTTPServer(("127.0.0.1", 8001), Impostor).serve_forever()
"""


def failed_checks(fleet: Workspace) -> set[str]:
    """Names of the checks of lab-3/tiny-gpu that fail; the exit code must agree."""
    done = fleet.corral("verify", "lab-3/tiny-gpu", "--json", *LAB)
    assert "Traceback" not in done.stderr
    rows = json.loads(done.stdout)["checks"]["lab-3"]
    assert {row["check"] for row in rows} == EVERY_CHECK
    failed = {row["check"] for row in rows if not row["ok"]}
    assert done.returncode == (1 if failed else 0)
    return failed


@contextmanager
def dropped_in(fleet: Workspace, text: str) -> Iterator[None]:
    """Add a drop-in to the instance's [Service] until the block ends."""
    folder = f"{UNIT_FILE}.d"
    write = f"mkdir {folder} && printf '[Service]\\n{text}\\n' > {folder}/test.conf"
    fleet.on("lab-3", f"{write} && {RESTART}")
    try:
        yield
    finally:
        fleet.on("lab-3", f"rm -r {folder} && {RESTART} && {WAIT}")


def test_a_converged_fleet_passes_in_every_check(deployed_once: Workspace) -> None:
    table = deployed_once.corral("verify", *LAB)
    assert table.returncode == 0, table.stdout + table.stderr
    assert "FAILED" not in table.stdout
    document = json.loads(deployed_once.corral("verify", "--json", *LAB).stdout)["checks"]
    passed = {(host, row["instance"]) for host in document for row in document[host] if row["ok"]}
    assert passed == set(INSTANCES)
    assert failed_checks(deployed_once) == set()


def test_a_stopped_instance_fails_and_the_table_says_which(fleet: Workspace) -> None:
    fleet.on("lab-3", f"systemctl stop {UNIT}")
    assert failed_checks(fleet) == EVERY_CHECK - WITHOUT_SERVER
    table = fleet.corral("verify", "lab-3", *LAB)
    assert table.returncode == 1
    failed = [line for line in table.stdout.splitlines() if "FAILED" in line]
    assert len(failed) == len(EVERY_CHECK - WITHOUT_SERVER)
    assert all(line.split()[:2] == ["lab-3", "tiny-gpu"] for line in failed)
    assert "Next: " in table.stderr


def test_a_server_with_other_arguments_than_planned_is_found(fleet: Workspace) -> None:
    changes = "s/ctx-size 4096/ctx-size 2048/; s/alias tiny-glm-moe/alias other/; s/--metrics//"
    fleet.on("lab-3", f"sed -i '{changes}' {UNIT_FILE} && {RESTART} && {WAIT}")
    assert failed_checks(fleet) == {"process", "unit", "model", "slots", "metrics"}


def test_an_edited_unit_file_is_seen_and_a_deploy_puts_it_back_without_a_restart(
    fleet: Workspace,
) -> None:
    """The next start or boot would differ from the plan; the running server does not."""
    before, text = fleet.pid("lab-3", "tiny-gpu"), fleet.on("lab-3", f"cat {UNIT_FILE}")
    edit = f"sed -i 's/ctx-size 4096/ctx-size 2048/' {UNIT_FILE}"
    fleet.on("lab-3", f"systemctl disable {UNIT} && {edit}")
    assert failed_checks(fleet) == {"unit", "enabled", "drop-ins"}
    # systemd has read the edited file now, and the server keeps running.
    fleet.on("lab-3", "systemctl daemon-reload")
    assert failed_checks(fleet) == {"unit", "enabled"}
    deployed = fleet.deploy("--limit", "lab-3")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert "kept (without a restart)" in deployed.stdout + deployed.stderr
    assert fleet.pid("lab-3", "tiny-gpu") == before
    assert fleet.on("lab-3", f"cat {UNIT_FILE}") == text
    assert failed_checks(fleet) == set()
    # A server that was started from an edited file is restarted.
    fleet.on("lab-3", f"{edit} && {RESTART} && {WAIT}")
    edited = fleet.pid("lab-3", "tiny-gpu")
    assert fleet.deploy("--limit", "lab-3").returncode == 0
    assert fleet.pid("lab-3", "tiny-gpu") not in (before, edited)
    assert failed_checks(fleet) == set()


def test_a_server_open_to_everybody_is_found(fleet: Workspace) -> None:
    changes = "s/--host 127.0.0.1/--host 0.0.0.0/"
    fleet.on("lab-3", f"sed -i '{changes}' {UNIT_FILE} && {RESTART} && {WAIT}")
    assert failed_checks(fleet) == {"process", "unit", "listening"}


def test_a_server_that_hangs_is_found(fleet: Workspace) -> None:
    fleet.on("lab-3", f"kill -STOP {fleet.pid('lab-3', 'tiny-gpu')}")
    try:
        assert failed_checks(fleet) == EVERY_CHECK - AT_ANY_RATE
    finally:
        fleet.on("lab-3", f"kill -CONT {fleet.pid('lab-3', 'tiny-gpu')}")


def test_a_server_without_keys_is_found(fleet: Workspace) -> None:
    key_file = "/etc/corral/keys/tiny-gpu"
    fleet.on("lab-3", f"echo '# none' > {key_file} && {RESTART} && {WAIT}")
    failed = failed_checks(fleet)
    assert failed >= {"keys", "keys-stored"}
    assert not failed & {*AT_ANY_RATE - {"keys-stored"}, "health"}


@contextmanager
def without_vram(fleet: Workspace) -> Iterator[None]:
    """lab-3's stand-in nvidia-smi sees no llama-server until the block ends."""
    described, kept = "/etc/corral-lab/gpus.json", "/root/gpus.json"
    fleet.on("lab-3", f"cp {described} {kept} && sed -i 's/llama-server/nobody/' {described}")
    try:
        yield
    finally:
        fleet.on("lab-3", f"mv {kept} {described}")


def test_a_server_that_fell_back_to_the_processor_is_found(fleet: Workspace) -> None:
    with without_vram(fleet):
        assert failed_checks(fleet) == {"vram"}


def test_a_gpu_error_since_the_start_is_found_and_one_before_it_is_not(fleet: Workspace) -> None:
    log = "/etc/corral-lab/kernel.log"
    line = "lab kernel: NVRM: Xid (PCI:0000:3b:00): 31, pid=1, name=llama-server, MMU Fault"
    fleet.on("lab-3", f"cp {log} /root/kernel.log && echo '1.0 {line}' >> {log}")
    try:
        assert failed_checks(fleet) == set()
        fleet.on("lab-3", f'echo "$(date +%s.0) {line}" >> {log}')
        assert failed_checks(fleet) == {"xid"}
    finally:
        fleet.on("lab-3", f"mv /root/kernel.log {log}")


def test_a_program_that_says_yes_to_everything_is_found(fleet: Workspace) -> None:
    fleet.on("lab-3", f"cat > /srv/impostor.py <<'END'\n{IMPOSTOR}END")
    with dropped_in(fleet, "ExecStart=\\nExecStart=/usr/bin/python3 /srv/impostor.py"):
        fleet.on("lab-3", WAIT)
        passes = {"unit", "environment", "enabled", "health", "listening", "reserved", "metrics"}
        passes |= {"weights", "xid", "keys-stored", "keys-loaded"}
        assert failed_checks(fleet) == EVERY_CHECK - passes


def test_a_drop_in_is_named_by_verify_and_by_a_deploy_which_changes_nothing(
    fleet: Workspace,
) -> None:
    before = fleet.pid("lab-3", "tiny-gpu")
    folder = "/etc/systemd/system/corral-.service.d"
    text = "[Service]\\nUser=root\\nEnvironment=LLAMA_ARG_TOOLS=all\\n"
    fleet.on("lab-3", f"mkdir {folder} && printf '{text}' > {folder}/test.conf")
    try:
        assert failed_checks(fleet) == {"drop-ins"}
        deployed = fleet.deploy("--limit", "lab-3")
        output = deployed.stdout + deployed.stderr
        assert deployed.returncode == 1, output
        assert f"{UNIT} is changed by {folder}/test.conf" in " ".join(output.split())
        assert fleet.pid("lab-3", "tiny-gpu") == before
        fleet.on("lab-3", f"{RESTART} && {WAIT}")
        assert failed_checks(fleet) >= {"drop-ins", "environment"}
    finally:
        fleet.on("lab-3", f"rm -r {folder} && {RESTART} && {WAIT}")
    assert failed_checks(fleet) == set()


def test_a_variable_of_systemd_itself_is_named(fleet: Workspace) -> None:
    fleet.on("lab-3", f"systemctl set-environment LLAMA_ARG_PROPS=1 && {RESTART} && {WAIT}")
    try:
        assert failed_checks(fleet) == {"environment"}
        deployed = fleet.deploy("--limit", "lab-3")
        assert deployed.returncode == 1
        said = " ".join((deployed.stdout + deployed.stderr).split())
        assert "systemctl unset-environment LLAMA_ARG_PROPS" in said
    finally:
        fleet.on("lab-3", f"systemctl unset-environment LLAMA_ARG_PROPS && {RESTART} && {WAIT}")


def test_nobody_else_answers_from_the_port_of_a_server_that_is_down(fleet: Workspace) -> None:
    """Without the rules clients reach a local user; with them, and after a boot, they do not."""
    listen = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8001)"
    user = (
        f"systemd-run --quiet --unit=thief --uid=nobody --working-directory=/ python3 -c '{listen}'"
    )
    ask = "curl --silent --output /dev/null --max-time 2 --retry 20 --retry-delay 0 "
    ask += "--retry-connrefused --retry-max-time 4 http://127.0.0.1:8001/"
    reserved = "served-by-corral.service"
    fleet.on("lab-3", f"systemctl stop {UNIT} && {user}")
    try:
        assert fleet.try_on("lab-3", ask).returncode == 28
        fleet.on("lab-3", "nft delete table inet served_by_corral")
        assert fleet.try_on("lab-3", ask).returncode == 0
        assert "reserved" in failed_checks(fleet)
        fleet.on("lab-3", f"systemctl restart {reserved} && systemctl is-enabled {reserved}")
        assert fleet.try_on("lab-3", ask).returncode == 28
    finally:
        fleet.on("lab-3", f"systemctl stop thief; {RESTART} && {WAIT}")
    assert failed_checks(fleet) == set()


def test_verify_sends_no_key_to_a_stranger_on_the_port(fleet: Workspace) -> None:
    fleet.on("lab-3", f"cat > /srv/impostor.py <<'END'\n{IMPOSTOR}END")
    start = "systemd-run --quiet --unit=thief python3 /srv/impostor.py"
    fleet.on("lab-3", f"systemctl stop {UNIT} && {start} && {WAIT}")
    try:
        done = fleet.corral("verify", "lab-3/tiny-gpu", "--json", *LAB)
        rows = {row["check"]: row for row in json.loads(done.stdout)["checks"]["lab-3"]}
        for name in ("model", "slots", "completion", "stream", "metrics"):
            assert "which is no process of that unit: no key was sent" in rows[name]["detail"]
    finally:
        fleet.on("lab-3", f"systemctl stop thief; {RESTART} && {WAIT}")


def test_a_deploy_whose_verification_fails_says_so_and_exits_with_an_error(
    fleet: Workspace,
) -> None:
    with without_vram(fleet):
        deployed = fleet.deploy()
    output = deployed.stdout + deployed.stderr
    assert deployed.returncode == 1
    assert "Traceback" not in output
    assert "tiny-gpu: vram: pid" in output
    assert "Next: " in output
