"""The operator's revert: to a generation that this host has, using only what is on the host."""

from corral_host.activation.activate import activate
from corral_host.instance.history import before, instance_folder, plan_of
from corral_host.plans.fields import release_folder
from corral_host.release.releases import MANIFEST
from corral_host.system.commands import read_json
from corral_host.weights.receipts import receipt_path


def revert_generation(spec, by, run=None):
    """Switch an instance to ``spec["to"]``, or to the previous generation; returns the report.

    ``spec``: host, paths, instance (a name), to, drained, confirm, rollout.
    """
    folder = instance_folder(spec)
    plan = plan_of(folder, spec["to"] or before(folder))
    return activate(
        {
            **{name: spec[name] for name in ("host", "paths", "drained", "confirm", "rollout")},
            "instance": plan,
            "instances": [plan, *neighbours(folder)],
            "releases": [release_of(plan)],
            "shards": [shard_of(path) for path in plan["shards"]],
            "rekeyed": False,
        },
        by,
        run,
    )


def neighbours(folder):
    """Plans of what the other instances of this host serve."""
    links = folder.parent.glob("*/current")
    return [plan_of(link.parent, link.resolve().name) for link in links if link.parent != folder]


def release_of(plan):
    folder = release_folder(plan)
    manifest = read_json(folder / MANIFEST) or {}
    return {"key": plan["release"], "folder": str(folder), "engine": manifest.get("engine")}


def shard_of(path):
    """The shard with the digest of its receipt; without a receipt nothing proves it."""
    receipt = read_json(receipt_path({"path": path})) or {}
    return {"path": path, "sha256": receipt.get("sha256"), "header": None}
