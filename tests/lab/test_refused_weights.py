"""Weights that differ from the lock are refused, and the old generation keeps serving.

lab-2 is to change from its two F16 shards to the Q8_0 file, which it does not have yet.
"""

from __future__ import annotations

from lab.faults import Rule
from tests.lab.observed import MODELS, digests, locked_shards
from tests.lab.workspace import Workspace

NEW_QUANT = ("inventories/lab.py", '"quant": "F16"', '"quant": "Q8_0"')
FORGET = f"find {MODELS} -name '*Q8_0.gguf*' -delete; rm -rf {MODELS}/.staging"
ANSWERS = "curl --silent --fail http://127.0.0.1:8001/health"


def refusal(fleet: Workspace, *rules: Rule) -> str:
    """Output of a deploy of the new quant under these faults; it must change nothing."""
    unit = "cat /etc/systemd/system/corral-tiny-f16.service"
    fleet.on("lab-2", FORGET)
    before = (fleet.pid("lab-2", "tiny-f16"), fleet.on("lab-2", unit))
    with fleet.edited(*NEW_QUANT), fleet.hub_faults(*rules):
        deployed = fleet.deploy("--limit", "lab-2")
    output = deployed.stdout + deployed.stderr
    assert deployed.returncode == 1
    assert "Traceback" not in output
    assert "Next: " in output
    assert (fleet.pid("lab-2", "tiny-f16"), fleet.on("lab-2", unit)) == before
    assert digests(fleet, "lab-2", MODELS, "*.gguf") == locked_shards(fleet, "F16")
    assert fleet.on("lab-2", ANSWERS) == '{"status":"ok"}'
    return " ".join(output.split())


def test_a_flipped_bit_is_refused(fleet: Workspace) -> None:
    said = refusal(fleet, Rule(match="*Q8_0.gguf", kind="flip", offset_bytes=123_456))
    assert "Tiny-GLM-MoE-Q8_0.gguf: the hub sent 357088 bytes with sha256" in said
    assert "Nothing was replaced" in said
    assert fleet.on("lab-2", f"find {MODELS}/.staging -type f") == ""


def test_a_short_file_is_refused_before_it_is_fetched(fleet: Workspace) -> None:
    said = refusal(fleet, Rule(match="*Q8_0.gguf", kind="short", size_bytes=300_000))
    assert "the hub says 300000 bytes, the lock says 357088" in said


def test_a_file_that_ends_early_is_refused(fleet: Workspace) -> None:
    said = refusal(fleet, Rule(match="/cdn/*Q8_0.gguf", kind="short", size_bytes=300_000))
    assert "the hub says 300000 bytes, the lock says 357088" in said


def test_another_revision_is_refused(fleet: Workspace) -> None:
    said = refusal(fleet, Rule(match="*", kind="wrong_commit"))
    assert "the hub answers revision bad0bad0bad0, the lock says" in said


def test_a_file_that_may_not_be_read_is_refused(fleet: Workspace) -> None:
    said = refusal(fleet, Rule(match="*Q8_0.gguf", kind="status", code=403))
    assert "Q8_0.gguf: the hub answers 403" in said


def test_a_hub_that_is_down_is_named(fleet: Workspace) -> None:
    said = refusal(fleet, Rule(match="*", kind="down"))
    assert f"{fleet.layout.hub_url}/corral-lab/Tiny-GLM-MoE-GGUF/resolve/" in said
    assert "no byte arrived for" in said


def test_the_same_change_without_a_fault_is_deployed(fleet: Workspace) -> None:
    fleet.on("lab-2", FORGET)
    before = fleet.pid("lab-2", "tiny-f16")
    with fleet.edited(*NEW_QUANT):
        deployed = fleet.deploy()
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert fleet.pid("lab-2", "tiny-f16") != before
    both = {**locked_shards(fleet, "F16"), **locked_shards(fleet, "Q8_0")}
    assert digests(fleet, "lab-2", MODELS, "*.gguf") == both
    # The serving generation keeps its weights, without which a change could not be reverted.
    back = fleet.deploy()
    assert back.returncode == 0, back.stdout + back.stderr
    fleet.on("lab-2", FORGET)
