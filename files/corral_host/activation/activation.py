"""One activation: what is wanted, what served before, and how it goes, as one object.

It is on the disk before anything is touched (journal.py), so that whoever finds it can end it.
"""

from dataclasses import dataclass, field

from corral_host.activation import record
from corral_host.system.commands import HostError
from corral_host.system.locks import boot_id

SIDE_BY_SIDE = "side by side"


@dataclass
class Activation:
    """A switch of one instance to a generation.

    ``spec``: host, paths, instance (the plan of the new generation), instances, releases, shards,
    drained, confirm, rollout; and rekeyed, which is False where keys that wait go on waiting. Of
    one that is read from the disk it has what its end needs: paths, instance, rekeyed.
    ``report``: as the controller gets it. ``previous``: the plan of the generation that serves, or
    None. ``invocation``: which start of the unit served when it began, ``proved``: which passed
    the gate. ``onward``: endpoints that clients are sent between. ``reserves``: ports that it
    reserved. ``started``: the unit of the server that was started last, where not its own.
    ``kept``: it was decided to be kept.
    """

    spec: dict
    report: dict
    previous: dict | None = None
    invocation: str = ""
    boot_id: str = field(default_factory=boot_id)
    onward: dict | None = None
    reserves: tuple = ()
    started: str | None = None
    proved: str | None = None
    kept: bool = False

    @property
    def plan(self):
        """Of the new generation."""
        return self.spec["instance"]

    @property
    def paths(self):
        return self.spec["paths"]

    @property
    def name(self):
        return self.plan["name"]

    @property
    def folder(self):
        """Of the instance: its generations, links and receipt."""
        return self.plan["folder"]

    @property
    def unit(self):
        return self.plan["unit"]

    @property
    def unit_path(self):
        return self.plan["unit_path"]

    @property
    def old(self):
        """The generation before, or None."""
        return self.report["from"]

    @property
    def new(self):
        return self.report["to"]

    @property
    def how(self):
        return self.report["how"]

    @property
    def drain_seconds(self):
        return self.plan["activation"]["drain_seconds"]

    @property
    def rekeyed(self):
        return self.spec.get("rekeyed", True)

    @property
    def job_unit(self):
        return f"corral-job-{record.job_name(self.name)}.service"

    def phase(self, name, detail=""):
        """Time a part of it, and report the phase meanwhile."""
        return record.phase(self.report, name, detail)

    def failed(self, reason):
        """The fault that carries its report."""
        self.report["reason"] = reason
        fault = HostError(reason)
        fault.answer = self.report
        return fault

    def document(self):
        """As it is on the disk. Helpers of other versions read it, after an upgrade and before."""
        named = {name: self.plan[name] for name in ("folder", "unit", "unit_path")}
        paths = {name: self.paths.get(name) for name in ("units", "state", "helper", "keys")}
        return {
            **named, **paths, "instance": self.name, "job": self.job_unit, "from": self.old,
            "to": self.new, "how": self.how, "kept": self.kept, "boot_id": self.boot_id,
            "invocation": self.invocation, "before": self.previous, "after": self.plan,
            "onward": self.onward, "report": self.report, "rekeyed": self.rekeyed,
            "reserves": list(self.reserves), "proved": self.proved,
        }  # fmt: skip


def from_document(found):
    """The same again, of whatever version; one from before keys waited moves none."""
    plan = {"name": found["instance"], **(found.get("after") or {})}
    paths = {name: found.get(name) for name in ("units", "state", "helper", "keys")}
    return Activation(
        {"instance": plan, "paths": paths, "rekeyed": bool(found.get("rekeyed"))},
        found["report"],
        previous=found.get("before"),
        invocation=found.get("invocation", ""),
        boot_id=found.get("boot_id", ""),
        onward=found.get("onward"),
        reserves=tuple(found.get("reserves", ())),
        proved=found.get("proved"),
        kept=bool(found.get("kept")),
    )
