"""Everything that a deploy could change on a host, as text to compare, by find and systemctl."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.lab.workspace import Done, Workspace

LAB = ("lab-1", "lab-2", "lab-3")
_LOOK = """
for folder in /etc/corral /etc/systemd/system /opt/corral /usr/local/lib/corral /var/lib/corral; do
  if [ -e "$folder" ]; then find "$folder" -printf '%p %y %m %s %T@ %l\\n' | sort; fi
done
systemctl show 'corral-*' --property=Id,MainPID,InvocationID,ActiveState
dpkg-query --show | sha256sum
"""


def look(lab: Workspace, *hosts: str) -> dict[str, str]:
    """Files with their times, units with their processes, packages: host -> text."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(hosts, pool.map(lambda host: lab.on(host, _LOOK), hosts), strict=True))


def said(done: Done) -> str:
    """Both streams of a command on one line: terminals and prefixes may break lines anywhere."""
    return " ".join((done.stdout + done.stderr).split())


def assert_refused(done: Done, *texts: str) -> None:
    """Check exit code, text and next step of a refusal, and that there is no traceback."""
    text = said(done)
    assert done.returncode != 0, text
    assert [one for one in (*texts, "Next:") if one not in text] == [], text
    assert "Traceback" not in text
