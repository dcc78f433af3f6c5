"""Stage an api-key file or a generation on the host. Touches no service."""

import os
from pathlib import Path

from corral_host.instance.stored_plan import mark_staged, stage_plan
from corral_host.server import staged_keys
from corral_host.server.key_digest import key_digest, private_digest
from corral_host.system.commands import HostError, write_atomic
from corral_host.system.locks import refuse_other_operator
from corral_host.system.modes import FOLDER, open_folder


def put_key(document):
    """Write the keys of an instance; ``document``: that of ``write_key``, and the keys."""
    return write_key(document, document.pop("keys"))


def write_key(instance, keys):
    """Write the keys of an instance; only root can read them from the first byte: 0600 in 0700.

    ``instance``: key_path, unit_path; asker (the current operator, see locks.py); was: the digest
    that the controller saw, and digest_key, see key_digest.py. If the instance may be started at
    any time, the keys are staged until its activation. Raises HostError while another rollout holds
    this host, and if somebody wrote other keys since the controller looked.
    """
    refuse_other_operator(instance.get("asker"))
    refuse_unseen(instance, keys)
    folder = Path(instance["key_path"]).parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    if os.path.exists(instance["unit_path"]) and os.path.exists(instance["key_path"]):
        staged_keys.write(instance["key_path"], keys)
    else:
        write_atomic(instance["key_path"], keys, mode=0o600)
        staged_keys.forget(instance["key_path"])


def refuse_unseen(instance, keys):
    """Without this, two controllers would overwrite each other's keys, and both report success.

    A file that other users can read has no digest: it is written in any case.
    """
    path = staged_keys.due_path(instance["key_path"])
    if "was" not in instance:
        return
    found = private_digest(path, instance["digest_key"])
    seen = (None, instance["was"], key_digest(keys, instance["digest_key"]))
    if found not in seen:
        raise HostError(
            f"{path}: somebody else put keys there a moment ago",
            "run the same deploy again, which says whose they are",
        )


def stage(instance):
    """Write a generation: its plan first; the unit makes it whole; last, the link that it waits.

    ``instance``: an InstancePlan, and asker (the current operator, see locks.py). Raises HostError
    while another rollout holds this host.
    """
    refuse_other_operator(instance.pop("asker", None))
    folder = Path(instance["folder"]) / "generations" / instance["generation"]
    open_folder(folder)
    if instance["chat_template"] is not None:
        write_readable(instance["chat_template_path"], instance["chat_template"])
    reference = instance.get("reference_text")
    if reference is not None:
        write_readable(instance["gate"]["perplexity"]["text_path"], reference)
    stage_plan(instance)
    write_atomic(folder / "unit", instance["unit_text"])
    mark_staged(instance)


def write_readable(path, text):
    """Write a file that the server's own user can read, whatever the umask is."""
    write_atomic(path, text)
    # The generation, the folder of generations, the instance, all instances, the state.
    for folder in list(Path(path).parents)[:5]:
        folder.chmod(FOLDER)
