"""Provision a host of one distribution as an operator does, and reboot it.

    python -m lab.try_platform ubuntu-24.04 --images

Works in a copy of the checkout with a lab of its own, which is removed at the end; it ends at the
first step that fails, and leaves the host to look at. With --images the same host then changes to
images, by the SingularityCE of its distribution.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from corral.errors import CorralError
from lab import ssh
from lab.edits import edited
from lab.platforms import PLATFORMS
from lab.scratch_checkout import ScratchCheckout

_HOST, _INVENTORY, _PROFILE = "lab-1", "inventories/lab.py", "catalog/profiles/tiny-chat.toml"
_UNITS = "corral-tiny-chat corral-tiny-long"
# Whose repository has a container program; images of Debian 13 are in the tests.
_WITH_SINGULARITY = "ubuntu-24.04"
# What a site does by hand (docs/runbooks/apptainer.md).
_INSTALL = """export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2 && apt-get install --yes --quiet=2 singularity-container
sed -i 's/^allow setuid = yes/allow setuid = no/' /etc/singularity/singularity.conf"""
_VERSIONS = """. /etc/os-release && echo "$PRETTY_NAME"
dpkg-query --show systemd python3 gcc libc6 singularity-container 2>/dev/null
python3 -c '
import json, sys
for path in sys.argv[1:]:
    made = json.load(open(path))
    print(made["engine"], "made on", made["toolchain"], "in", made["build_seconds"], "s")
' /opt/corral/engines/*/*/manifest.json"""
_BOOT = "cat /proc/sys/kernel/random/boot_id"
_BOOT_SECONDS = 120
_STEP_SECONDS = 600


class Site:
    """The host and its controller, by the commands that an operator types."""

    def __init__(self, checkout: ScratchCheckout) -> None:
        self.checkout = checkout

    def on(self, script: str) -> str:
        """Output of a script on the host."""
        layout = self.checkout.layout
        return ssh.run_on(layout, 1, script, timeout_seconds=_STEP_SECONDS).strip()

    def corral(self, *arguments: str) -> str:
        """Output of a command of Corral's about the lab."""
        return self.checkout.run("corral", *arguments, "-i", _INVENTORY)

    def deploy(self) -> None:
        """Deploy, then again: the second time nothing is restarted."""
        with _timed("deployed"):
            self.checkout.run("pyinfra", _INVENTORY, "deploy.py", "-y")
        before = self._servers()
        with _timed("deployed again"):
            self.checkout.run("pyinfra", _INVENTORY, "deploy.py", "-y")
        if self._servers() != before:
            raise SystemExit("a deploy without a change restarted a server")

    def verify(self) -> None:
        """Compare host and answers with the plan."""
        with _timed("verified"):
            self.corral("verify", _HOST)

    def reboot(self) -> None:
        """Until the host has booted again and its servers answer."""
        before = self.on(_BOOT)
        with _timed("rebooted, and its servers answer"):
            # The connection ends before the host does.
            self.on("systemd-run --quiet --on-active=1 systemctl reboot")
            deadline = time.monotonic() + _BOOT_SECONDS
            while self._boot() in ("", before):
                if time.monotonic() > deadline:
                    raise SystemExit(f"{_HOST} is not back after {_BOOT_SECONDS} s")
                time.sleep(1)
            ask = "curl --silent --fail --retry 60 --retry-delay 1 --retry-all-errors"
            address = self.checkout.layout.address(1)
            for server in (f"{address}:8001", "127.0.0.1:8002"):
                self.on(f"{ask} http://{server}/health")

    def _boot(self) -> str:
        """What names this boot; nothing while the host is away."""
        with suppress(CorralError):
            ssh.wait_until_booted(self.checkout.layout, 1)
            return self.on(_BOOT)
        return ""

    def _servers(self) -> str:
        return self.on(f"systemctl show {_UNITS} -P MainPID")


@click.command()
@click.argument("platform", type=click.Choice(list(PLATFORMS)))
@click.option("--images", is_flag=True, help="Then in images, by its SingularityCE.")
def main(platform: str, images: bool) -> None:
    """Deploy twice, verify, reboot, verify; the same in images, with a change and a revert."""
    if images and platform != _WITH_SINGULARITY:
        raise click.BadParameter(f"it is for {_WITH_SINGULARITY}", param_hint="--images")
    site = Site(ScratchCheckout.make(f"on-{platform}"))
    site.checkout.run("corral", "lab", "down")
    site.checkout.use_cached_releases()
    with _timed("booted"):
        site.checkout.run("corral", "lab", "up", "--hosts", "1", "--platform", platform)
    natively(site)
    if images:
        in_images(site)
    click.echo(site.on(_VERSIONS))
    site.checkout.remove()


def natively(site: Site) -> None:
    """From bare to rebooted."""
    site.deploy()
    site.verify()
    site.reboot()
    site.verify()


def in_images(site: Site) -> None:
    """Its servers change to images; one of them is changed, and reverted."""
    with _timed("singularity installed"):
        site.on(_INSTALL)
    path, native = site.checkout.path, '"disposable": True,'
    runtime = f'{native} "runtime": "apptainer", "container_program": "singularity",'
    with edited(path / _INVENTORY, native, runtime):
        site.deploy()
        site.verify()
        with edited(path / _PROFILE, "slots = 2", "slots = 1"):
            site.deploy()
            site.verify()
        with _timed("reverted"):
            site.corral("revert", f"{_HOST}/tiny-chat")
        site.verify()
        site.reboot()
        site.verify()


@contextmanager
def _timed(title: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    click.echo(f"{time.monotonic() - began:7.1f} s  {title}")


if __name__ == "__main__":
    main()
