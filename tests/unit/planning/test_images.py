"""Releases that run in images: their keys, their units, and what reaches the server."""

from __future__ import annotations

from typing import Any

import pytest

from corral.catalog.entries import Catalog, Engine
from corral.errors import CorralError
from corral.lock.lock_file import LockedEngine
from corral.paths import HostPaths
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.plan.release import MadeImage, OwnImage
from corral.planning.planner import Planner
from corral.planning.release import plan_release  # noqa: F401
from corral.preflight.checks import preflight
from tests.samples import (
    CHAT,
    GIB,
    GPU,
    LONG,
    NOW_SECONDS,
    SOCKET,
    bare,
    catalog,
    host,
    lock,
    plan,
    planner,
)
from tests.unit import vllm_samples

BOXED = {**CHAT, "runtime": "apptainer"}
DIGEST = "5" * 64
SITE = {
    "kind": "llama.cpp",
    "image": {"source": "/srv/images/site.sif", "program": "/app/llama-server"},
}


def boxed(instance: dict[str, Any] = BOXED, **data: Any) -> InstancePlan:
    (found,) = plan(instance, **data).instances
    return found


def site_planner(**entry: Any) -> Planner:
    """A planner whose engine ``site`` is an image."""
    there: Catalog = catalog()
    engine = Engine.model_validate({**SITE, **entry})
    locked = LockedEngine(requested=engine.pinned, commit=DIGEST[:40], image_sha256=DIGEST)
    known = there.model_copy(update={"engines": {**there.engines, "site": engine}})
    held = lock()
    held = held.model_copy(update={"engines": {**held.engines, "site": locked}})
    return planner().model_copy(update={"catalog": known, "lock": held})


def site_plan(instance: dict[str, Any] | None = None, **data: Any) -> HostPlan:
    return site_planner().plan_host(host({**CHAT, "engine": "site", **(instance or {})}, **data))


def before(found: InstancePlan, word: str) -> list[str]:
    """Values of an option that may be repeated."""
    command = found.runtime.command
    return [command[i + 1] for i, one in enumerate(command) if one == word]


def test_an_instance_or_its_host_names_the_runtime() -> None:
    by_host = boxed(CHAT, runtime="apptainer")
    assert by_host.runtime == boxed().runtime
    assert boxed({**CHAT, "runtime": "native"}, runtime="apptainer").runtime.kind == "native"
    assert boxed(CHAT).runtime.command == ()


def test_the_image_is_another_release_than_what_is_in_it() -> None:
    planned, native = plan(BOXED, {**LONG, "runtime": "native"}), plan(LONG)
    image, inside = planned.releases
    assert isinstance(image.artifact, MadeImage)
    assert image.artifact.of == inside == native.releases[0]
    assert image.key != inside.key
    assert image.image_path == f"{image.folder}/image.squashfs"
    assert {"squashfs-tools", "squashfuse", "libnss-systemd"} <= set(planned.packages)
    assert not {"squashfs-tools", "squashfuse"} & set(native.packages)


def test_the_server_has_one_path_inside_and_outside() -> None:
    found = boxed()
    assert found.argv[0] == f"{found.release_folder}/bin/llama-server"
    assert found.runtime.command[-1] == f"{found.release_folder}/image.squashfs"
    assert f"{found.runtime.command[-1]} \\\n    {found.argv[0]}" in found.unit_text


def test_weights_are_read_only_below_models() -> None:
    found = boxed()
    assert before(found, "--bind")[0] == f"{HostPaths().models}:/models:ro"
    model = found.argv[found.argv.index("--model") + 1]
    assert model == found.model_path.replace(HostPaths().models, "/models")


def test_nothing_else_of_the_host_is_in_the_container() -> None:
    found = boxed()
    assert {"--containall", "--cleanenv", "--no-home"} <= set(found.runtime.command)
    credentials = "/run/credentials/corral-chat.service"
    assert before(found, "--bind")[1:] == [f"{credentials}:{credentials}:ro"]
    assert found.credential_path == f"{credentials}/api-keys"


def test_variables_come_by_arguments() -> None:
    found = boxed({**BOXED, "gpus": [1]}, gpus=GPU)
    given = before(found, "--env")
    assert "CUDA_VISIBLE_DEVICES=1" in given
    assert "CUDA_CACHE_PATH=/var/cache/corral-chat" in given
    assert "/var/cache/corral-chat:/var/cache/corral-chat:rw" in before(found, "--bind")
    assert "\nEnvironment=" not in found.unit_text
    assert "--nv" in found.runtime.command
    assert "--nv" not in boxed().runtime.command


def test_a_socket_is_in_a_folder_that_both_see() -> None:
    found = boxed({**SOCKET, "runtime": "apptainer"})
    assert "/run/corral-private:/run/corral-private:rw" in before(found, "--bind")


def test_its_unit_allows_what_a_container_needs() -> None:
    unit, native = boxed().unit_text, boxed(CHAT).unit_text
    for line in (
        "KillMode=mixed", "RestrictNamespaces=user mnt pid ipc", "DeviceAllow=/dev/fuse rw",
        "DevicePolicy=closed", "PrivateDevices=no",
    ):  # fmt: skip
        assert f"\n{line}\n" in unit
        assert f"\n{line}\n" not in native
    assert "mount umount2 pivot_root" in unit
    assert "RestrictNamespaces=yes" in native


def test_without_fuse_the_image_is_unpacked() -> None:
    found = boxed(unpack_images=True)
    assert "--unsquash" in found.runtime.command
    assert "/dev/fuse" not in found.unit_text
    assert "PrivateDevices=yes" in found.unit_text


def test_the_spare_server_has_its_own_credentials() -> None:
    spare = boxed().activation.spare
    assert spare is not None
    assert "/run/credentials/corral-chat-spare.service:" in spare.unit_text
    assert "/run/credentials/corral-chat.service" not in spare.unit_text


def test_another_container_program_is_another_generation() -> None:
    other = boxed(container_program="singularity")
    assert other.runtime.command[0] == "singularity"
    assert other.generation != boxed().generation
    same = boxed(container_program="/opt/apptainer/bin/apptainer")
    assert same.release == boxed().release


def test_singularity_gets_images_that_it_can_read() -> None:
    (zstd,), (gzip,) = (
        plan(BOXED, container_program=name).releases for name in ("apptainer", "singularity")
    )
    assert isinstance(zstd.artifact, MadeImage)
    assert isinstance(gzip.artifact, MadeImage)
    assert (zstd.artifact.compression, gzip.artifact.compression) == ("zstd", "gzip")
    assert zstd.key != gzip.key
    assert zstd.artifact.of == gzip.artifact.of
    assert gzip.artifact.fetched_from("https://mirror.example.com/x").compression == "gzip"


def test_singularity_mounts_no_image_but_a_sif_file() -> None:
    """By squashfuse, whose end would else be looked for where none runs."""
    by_singularity: dict[str, Any] = {"container_program": "singularity"}
    found = boxed(**by_singularity)
    assert found.runtime.unpacks
    assert "/dev/fuse" not in found.unit_text
    (own,) = site_plan(**by_singularity).instances
    assert not own.runtime.unpacks
    assert "DeviceAllow=/dev/fuse rw" in own.unit_text
    assert not boxed().runtime.unpacks


def test_singularity_has_options_of_its_own() -> None:
    """A unit has no new privileges, so that a setuid starter would end at once."""
    command = boxed(container_program="/opt/ce/bin/singularity").runtime.command
    assert {"--userns", "--tmp-sandbox"} <= set(command)
    assert "--unsquash" not in command
    assert "--userns" not in boxed().runtime.command


def test_an_image_of_the_site_runs_its_own_program() -> None:
    planned = site_plan()
    (found,), (release,) = planned.instances, planned.releases
    assert isinstance(release.artifact, OwnImage)
    assert release.artifact.sha256 == DIGEST
    assert found.argv[0] == "/app/llama-server"
    assert found.runtime.command[-1] == f"{release.folder}/image.sif"
    assert found.fit_argv is None or found.fit_argv[0].startswith(release.folder)


def test_room_for_a_copy_of_the_sites_image_is_needed_by_its_own_disk() -> None:
    """By the size in the lock; where nobody read the file, by what the host has."""
    planned = site_plan()
    (release,) = planned.releases
    assert release.installed_bytes == 0
    state = bare(planned, site_images={release.key: 30 * GIB}, **disks(engines_gib=20))
    (found,) = preflight(planned, state, now_seconds=NOW_SECONDS)
    assert found.what == "/opt/corral/engines: 31.0 GiB needed, 20.0 GiB free"
    assert not preflight(planned, bare(planned, **disks(engines_gib=20)), now_seconds=NOW_SECONDS)
    held = site_planner()
    known = held.lock.engines["site"].model_copy(update={"image_bytes": 7 * GIB})
    lock_ = held.lock.model_copy(update={"engines": {**held.lock.engines, "site": known}})
    (sized,) = (
        held.model_copy(update={"lock": lock_}).plan_host(host({**CHAT, "engine": "site"})).releases
    )
    assert (sized.installed_bytes, sized.key) == (7 * GIB, release.key)


def disks(*, engines_gib: int) -> dict[str, Any]:
    """Engines have a disk of their own."""
    other = {"device": 2, "free_bytes": 10**13}
    engines = {"device": 1, "free_bytes": engines_gib * GIB}
    return {"filesystems": {"engines": engines, "state": other, "models": other}}


def test_an_image_is_not_started_natively() -> None:
    with pytest.raises(CorralError, match="it is an image"):
        site_plan({"runtime": "native"})
    assert site_plan(runtime="native").instances[0].runtime.kind == "apptainer"


def test_an_image_for_gpus_serves_on_gpus() -> None:
    entry = {"image": {**SITE["image"], "backend": "cuda"}}  # type: ignore[dict-item]
    with pytest.raises(CorralError, match="is for cuda"):
        site_planner(**entry).plan_host(host({**CHAT, "engine": "site"}))


def test_the_site_may_keep_it_elsewhere_on_a_host() -> None:
    planned = site_plan(engine_sources={"site": "https://mirror.example.com/site.sif"})
    assert planned.releases[0].artifact.source_url == "https://mirror.example.com/site.sif"
    assert planned.releases[0].key == site_plan().releases[0].key


def test_vllm_runs_in_an_image_of_its_environment_and_of_what_it_compiles_with() -> None:
    planned = vllm_samples.planner(planner(), **vllm_samples.ON_CPU).plan_host(
        host({**vllm_samples.ASKED, "runtime": "apptainer"})
    )
    (found,), (release,) = planned.instances, planned.releases
    assert isinstance(release.artifact, MadeImage)
    assert {"gcc", "g++", "python3-dev"} <= set(release.artifact.contents)
    assert found.argv[0] == f"{release.folder}/bin/python"
    assert found.argv[5].startswith("/models/")
    # Its keys are made a file of its own in the container, too, where both runs see it.
    folder = "/run/corral-glm"
    assert f"{folder}:{folder}:rw" in before(found, "--bind")
    assert found.unit_text.count(f"--bind {folder}:{folder}:rw") == 2
    assert "HOME=/var/cache/corral-glm" in before(found, "--env")
    assert "\nMemoryDenyWriteExecute=no\n" in found.unit_text
    assert "sched_setscheduler sched_setaffinity mount umount2" in found.unit_text
