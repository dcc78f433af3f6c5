"""Put an api-key file or a generation on the host. Touches no service."""

from pathlib import Path

from corral_host.modes import FOLDER, open_folder
from corral_host.stored_plan import stage_plan
from corral_host.tools import write_atomic


def write_key(instance, keys):
    """Root's alone from the first byte: 0600 in 0700."""
    folder = Path(instance["key_path"]).parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    write_atomic(instance["key_path"], keys, mode=0o600)


def stage(instance):
    """A generation: the plan that it was made from, then the unit, which makes it count."""
    folder = Path(instance["folder"]) / "generations" / instance["generation"]
    open_folder(folder)
    if instance["chat_template"] is not None:
        write_readable(instance["chat_template_path"], instance["chat_template"])
    reference = instance.get("reference_text")
    if reference is not None:
        write_readable(instance["gate"]["perplexity"]["text_path"], reference)
    stage_plan(instance)
    write_atomic(folder / "unit", instance["unit_text"])


def write_readable(path, text):
    """For the server, which runs as a user of its own, whatever the umask says."""
    write_atomic(path, text)
    # The generation, the folder of generations, the instance, all instances, the state.
    for folder in list(Path(path).parents)[:5]:
        folder.chmod(FOLDER)
