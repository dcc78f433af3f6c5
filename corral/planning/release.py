"""The engine release of an instance: everything that decides its bytes, and a key over it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from corral_shared.requirements import pins

from corral.catalog.entries import Catalog, Engine
from corral.catalog.image import Image
from corral.catalog.python_environment import PythonEnvironment as Pinned
from corral.engines import KvPair, engine_module
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.lock.lock_file import Lock, LockedEngine, lock_step, locked_engine
from corral.lock.requirements import RequirementsFiles, mirror_of
from corral.nvidia import versions
from corral.paths import HostPaths
from corral.plan.release import (
    Artifact,
    CmakeBuild,
    MadeImage,
    OwnImage,
    Patch,
    PythonEnvironment,
    ReleaseLimits,
    ReleasePlan,
    Toolchain,
)
from corral.planning.gpus import capabilities
from corral.planning.resolved import Backend, ResolvedInstance
from corral.runtimes import COMPRESSIONS, program_kind

_GIB = 1024**3
_MIB = 1024**2
# Sources, object files and staging of one build; CUDA objects are the larger.
_BUILD_BYTES = {"cpu": 2 * _GIB, "cuda": 8 * _GIB}
# Stripped programs of one release; a CUDA build measured 93 MB for one architecture.
_BUILT_BYTES = 512 * _MIB
# The C library with its programs, unpacked.
_ROOT_BYTES = 128 * _MIB
ROOT_PACKAGES = ("base-files", "libc-bin", "libc6")
# An image, its launchers and their list.
_IMAGE_FILES = 32
# A release for CUDA has up to 3 GB; more than this is none, whoever says so.
_BUILT_LIMITS = ReleaseLimits(unpacked_bytes=16 * _GIB, unpacked_files=10_000)


def plan_release(
    resolved: ResolvedInstance,
    neighbours: Sequence[ResolvedInstance],
    catalog: Catalog,
    lock: Lock,
    requirements: RequirementsFiles,
    paths: HostPaths,
) -> ReleasePlan:
    """The release of an instance; it suits all ``neighbours``, the instances of its host.

    Raises CorralError for an entry that is not locked or not known, and for a GPU that the host's
    toolkit cannot build for.
    """
    host, name, backend = resolved.host, resolved.engine, resolved.backend
    engine = catalog.engines[name]
    entry = locked_engine(lock, catalog, name, where=resolved.where, inventory=host.origin)
    artifact: CmakeBuild | PythonEnvironment | OwnImage
    if engine.image:
        _refuse_other_backend(resolved, engine.image)
        artifact = OwnImage(
            source=_image_source(host, name, engine.image, entry.image_sha256 or ""),
            sha256=entry.image_sha256 or "",
            image=engine.image.file_name,
            program=engine.image.program,
            platform=host.spec.platform,
        )
        scratch, installed = 0, entry.image_bytes or 0
        limits = ReleaseLimits(unpacked_bytes=engine.image.most_bytes, unpacked_files=_IMAGE_FILES)
    elif engine.python:
        _refuse_other_backend(resolved, engine.python)
        artifact = _environment(host, catalog, name, engine.python, entry, requirements)
        unpacked = engine.python.unpacked_bytes
        # Its archive, which is at most half as large, is packed below the state.
        scratch, installed = unpacked // 2, unpacked
        limits = ReleaseLimits(unpacked_bytes=unpacked, unpacked_files=engine.python.unpacked_files)
    else:
        artifact = _build(resolved, neighbours, catalog, entry.commit)
        scratch, installed, limits = _BUILD_BYTES[backend], _BUILT_BYTES, _BUILT_LIMITS
    whole: dict[str, Any] = {
        "scratch_bytes": scratch,
        "installed_bytes": installed,
        "limits": limits,
    }
    release = _planned(resolved, engine, entry, artifact, paths, whole)
    if resolved.runtime == "native" or engine.image:
        return release
    inside = MadeImage(
        of=release,
        contents=_contents(host, catalog, engine),
        compression=COMPRESSIONS[program_kind(host.spec.container_program)],
    )
    # The release itself is installed beside its image, on the host that makes it.
    whole["installed_bytes"] = 2 * installed + _ROOT_BYTES
    return _planned(resolved, engine, entry, inside, paths, whole)


def _image_source(host: Host, name: str, image: Image, sha256: str) -> str:
    """Where a host gets an image of the site's own: in its bundle it is found by digest."""
    if host.spec.bundle:
        return f"{host.spec.weights_url}/images/{sha256}/{quote(image.file_name)}"
    return host.spec.engine_sources.get(name, image.source)


def _contents(host: Host, catalog: Catalog, engine: Engine) -> tuple[str, ...]:
    """Packages whose files make the root of an image: what a release expects of its host."""
    python = catalog.platform(host.spec.platform, where=host.name).python
    interpreter = (f"python{python}",) if engine.python else ()
    needed = engine_module(engine.kind).packages
    return tuple(sorted({*ROOT_PACKAGES, *interpreter, *needed}))


def _planned(
    resolved: ResolvedInstance,
    engine: Engine,
    entry: LockedEngine,
    artifact: Artifact,
    paths: HostPaths,
    whole: Mapping[str, Any],
) -> ReleasePlan:
    """A release with its key; ``whole``: sizes."""
    host, name, backend = resolved.host, resolved.engine, resolved.backend
    decides_bytes = {
        "engine": name,
        "commit": entry.commit,
        "backend": backend,
        # The features of a processor are not known here: such a release is its host's alone, and
        # the helper builds it again where the processor has changed.
        "native": host.name if host.spec.native_build else None,
        **artifact.decides_bytes,
    }
    digest = hashlib.sha256(json.dumps(decides_bytes, sort_keys=True).encode()).hexdigest()
    key = f"{entry.commit[:12]}-{backend}-{digest[:8]}"
    return ReleasePlan(
        engine=name,
        kind=engine.kind,
        key=key,
        commit=entry.commit,
        backend=backend,
        artifact=artifact,
        native=host.spec.native_build,
        folder=f"{paths.engines}/{name}/{key}",
        **whole,
    )


def sources_url(host: Host, engine: str, commit: str, repository: str) -> str:
    """Where a host gets the sources of an engine: a pack of its bundle, a mirror, or upstream."""
    if host.spec.bundle:
        return f"{host.spec.weights_url}/sources/{engine}/{commit}.pack"
    return host.spec.engine_sources.get(engine, repository)


def _build(
    resolved: ResolvedInstance,
    neighbours: Sequence[ResolvedInstance],
    catalog: Catalog,
    commit: str,
) -> CmakeBuild:
    host, name, engine = resolved.host, resolved.engine, catalog.engines[resolved.engine]
    patches = tuple(
        Patch(name=file, text=catalog.patch(file, where=f"catalog/engines/{name}.toml"))
        for file in engine.patches
    )
    return CmakeBuild(
        source_url=sources_url(host, name, commit, engine.repository),
        patches=patches,
        cmake_options=_cmake_options(resolved, neighbours, engine),
        targets=engine.targets,
        toolchain=_toolchain(host, catalog, engine, resolved.backend),
    )


def _refuse_other_backend(resolved: ResolvedInstance, pinned: Pinned | Image) -> None:
    """Raises CorralError where a release is not for what the instance computes on."""
    ours, theirs = resolved.backend, pinned.backend
    if theirs == ours == "cuda" and not resolved.gpus:
        profile = resolved.spec.profile
        what = f"engine {resolved.engine} is for cuda, and profile {profile} uses no GPU"
        raise CorralError(resolved.where, what, f'set placement = "gpu" in profile {profile}')
    if theirs is None or theirs == ours:
        return
    needs = "GPUs" if theirs == "cuda" else 'backend = "cpu"'
    what = f"engine {resolved.engine} is for {theirs}, the host's back end is {ours}"
    step = f"choose another engine for it, or a host with {needs}"
    raise CorralError(resolved.where, what, step)


def _environment(
    host: Host,
    catalog: Catalog,
    name: str,
    pinned: Pinned,
    entry: LockedEngine,
    requirements: RequirementsFiles,
) -> PythonEnvironment:
    """Raises CorralError for a version that must not serve, or does not run on this platform."""
    platform = host.spec.platform
    python = catalog.platform(platform, where=host.name).python
    if not pinned.runs_on(python):
        what = f"engine {name} runs on Python {pinned.python}, and {platform} has {python}"
        step = "choose another engine for its instances, or another distribution for the host"
        raise CorralError(host.name, what, step)
    text = requirements.read(name, entry, inventory=host.origin)
    if problem := engine_module(catalog.engines[name].kind).release_problem(pins(text)):
        step = f"raise it in catalog/engines/{name}.toml, then {lock_step(host.origin)}"
        raise CorralError(f"engine {name}", problem, step)
    mirror = f"{host.spec.weights_url}/simple" if host.spec.bundle else mirror_of(host, name)
    return PythonEnvironment(
        requirements=text,
        requirements_sha256=entry.requirements_sha256 or "",
        installer=requirements.installer(),
        index=mirror or pinned.index,
        find_links=None if mirror else pinned.find_links,
        python=python,
        platform=platform,
    )


def _toolchain(host: Host, catalog: Catalog, engine: Engine, backend: Backend) -> Toolchain:
    platform = catalog.platform(host.spec.platform, where=host.name)
    return Toolchain(
        platform=host.spec.platform,
        compiler=platform.compiler,
        c_library=platform.c_library,
        cuda_toolkit=_cuda_toolkit(host, catalog, engine) if backend == "cuda" else None,
    )


def _cuda_toolkit(host: Host, catalog: Catalog, engine: Engine) -> str:
    """The CUDA toolkit that builds for a host. Raises CorralError where it cannot."""
    source = catalog.drivers.get(host.spec.platform)
    release = host.spec.cuda_toolkit or (source.toolkit_release if source else None)
    if release is None:
        what = f"no CUDA toolkit is configured for {host.spec.platform}"
        step = f'add "cuda_toolkit" to the host, or catalog/drivers/{host.spec.platform}.toml'
        raise CorralError(host.name, what, step)
    if not versions.at_least(release, engine.minimum_toolkit):
        what = f"CUDA toolkit {release} is too old: {engine.kind} needs {engine.minimum_toolkit}"
        raise CorralError(host.name, what, 'name another as "cuda_toolkit" of the host')
    for capability in capabilities(host.spec.gpus) if host.spec.gpus else ():
        _refuse_capability(host, release, capability)
    return release


def _refuse_capability(host: Host, release: str, capability: str) -> None:
    """Raises CorralError where a toolkit cannot build for GPUs of a host."""
    if not versions.is_known(capability):
        what = f"no CUDA toolkit is known to build for compute capability {capability}"
        step = (
            'correct "compute_capability" in "gpus" of the host, or add the capability with its '
            "first toolkit (NVIDIA's CUDA release notes) to corral/nvidia/versions.py"
        )
        raise CorralError(host.name, what, step)
    if not versions.builds_for(release, capability):
        least = versions.minimum_toolkit(capability)
        newer = versions.key(least) > versions.key(release)
        reason = f"it needs {least}" if newer else "support was dropped"
        what = f"CUDA toolkit {release} cannot build for compute capability {capability}: {reason}"
        raise CorralError(host.name, what, 'name another as "cuda_toolkit" of the host')


def _cmake_options(
    resolved: ResolvedInstance, neighbours: Sequence[ResolvedInstance], engine: Engine
) -> tuple[str, ...]:
    options = engine_module(resolved.kind).cmake_options(
        engine,
        backend=resolved.backend,
        cuda_architectures=_cuda_architectures(resolved.host),
        kv_pairs=_kv_pairs(neighbours, resolved.engine),
        native=resolved.host.spec.native_build,
    )
    return tuple(options)


def _cuda_architectures(host: Host) -> str | None:
    """``80;89`` for compute capabilities 8.0 and 8.9, as CMAKE_CUDA_ARCHITECTURES expects it."""
    found = capabilities(host.spec.gpus) if host.spec.gpus else ()
    return ";".join(one.replace(".", "") for one in found) or None


def _kv_pairs(resolved_instances: Sequence[ResolvedInstance], engine: str) -> frozenset[KvPair]:
    """Pairs of KV cache types for which an engine's release needs GPU kernels."""
    return frozenset(r.kv_pair for r in resolved_instances if r.engine == engine and r.kv_pair)
