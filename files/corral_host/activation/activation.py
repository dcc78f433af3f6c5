"""One activation: the new generation, the previous one, and the report, as one object.

It is written to disk before anything is touched (journal.py), so any later process can settle it.
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
    drained, confirm, rollout; and rekeyed, which is False if staged keys are to stay staged. An
    activation read from disk has only what settling needs: paths, instance, rekeyed.
    ``report``: as the controller gets it. ``previous``: the plan of the generation that serves, or
    None. ``invocation``: systemd's id of the start of the unit that served when the activation
    began; ``proved``: of the start that passed the gate. ``onward``: endpoints between which
    clients are redirected. ``reserves``: ports that the activation reserved. ``started``: the unit
    of the server that was started last, if not the instance's own. ``kept``: whether the decision
    to keep the generation was made.
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
        """Plan of the new generation."""
        return self.spec["instance"]

    @property
    def paths(self):
        return self.spec["paths"]

    @property
    def name(self):
        return self.plan["name"]

    @property
    def folder(self):
        """Folder of the instance: its generations, links and receipt."""
        return self.plan["folder"]

    @property
    def unit(self):
        return self.plan["unit"]

    @property
    def unit_path(self):
        return self.plan["unit_path"]

    @property
    def old(self):
        """Id of the previous generation, or None."""
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
        """Time a part of the activation and publish it as the current phase."""
        return record.phase(self.report, name, detail)

    def failed(self, reason):
        """A HostError with this reason that carries the report."""
        self.report["reason"] = reason
        fault = HostError(reason)
        fault.answer = self.report
        return fault

    def document(self):
        """The document for the disk. Older and newer helpers read it, so its names are fixed."""
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
    """Read an Activation from a document of any version.

    Documents from before keys were staged have no ``rekeyed``; settling them moves no keys.
    """
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
