"""Corrupt weights on the disk: found by `corral verify --rehash`, fetched again by a deploy."""

from __future__ import annotations

import json

from tests.lab.observed import MODELS, has_quant
from tests.lab.workspace import Workspace

LAB = ("-i", "inventories/lab.py")
# Keeps the modification time, as silent corruption does.
ROT = (
    "import os, pathlib; path = next(pathlib.Path('{models}').rglob('*-00001-of-*.gguf')); "
    "before = path.stat(); file = path.open('rb+'); file.seek(200000); byte = file.read(1)[0]; "
    "file.seek(200000); file.write(bytes([byte ^ 4])); file.close(); "
    "os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))"
)


def rows(fleet: Workspace) -> tuple[int, list[bool]]:
    """Exit code of `corral verify --rehash lab-2`, and its result for each shard."""
    done = fleet.corral("verify", "lab-2", "--rehash", "--json", *LAB)
    assert "Traceback" not in done.stderr
    return done.returncode, [row["ok"] for row in json.loads(done.stdout)["shards"]["lab-2"]]


def test_a_flipped_bit_is_found_and_the_next_deploy_fetches_the_shard_anew(
    fleet: Workspace,
) -> None:
    assert rows(fleet) == (0, [True, True])
    fleet.on("lab-2", f'python3 -c "{ROT.format(models=MODELS)}"')
    assert not has_quant(fleet, "lab-2", "F16")
    assert fleet.corral("verify", "lab-2", *LAB).returncode == 0
    assert rows(fleet) == (1, [False, True])
    table = fleet.corral("verify", "lab-2", "--rehash", *LAB)
    assert [line.split()[0] for line in table.stdout.splitlines() if "FAILED" in line] == ["lab-2"]
    deployed = fleet.deploy()
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert has_quant(fleet, "lab-2", "F16")
    assert rows(fleet) == (0, [True, True])
