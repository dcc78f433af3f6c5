"""Which engine release an instance runs: everything that decides its bytes, and a key over it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from corral_shared.names import quoted_path

from corral.catalog.entries import Catalog, Engine
from corral.engines import KvPair, engine_module
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.lock.lock_file import Lock, locked_engine
from corral.nvidia import versions
from corral.paths import HostPaths
from corral.plan.release import Patch, ReleasePlan, Toolchain, WheelPlan
from corral.planning.request import Backend, Requested

_GIB = 1024**3
# Sources, object files and staging of one build; CUDA objects are the larger.
_SCRATCH_BYTES = {"cpu": 2 * _GIB, "cuda": 8 * _GIB}


def plan_release(
    asked: Requested,
    neighbours: Sequence[Requested],
    catalog: Catalog,
    lock: Lock,
    paths: HostPaths,
) -> ReleasePlan:
    """The release of an instance; it fits all ``neighbours``, the instances of its host.

    Raises CorralError for what is not locked, not known, or not built by the host's toolkit.
    """
    host, name, backend = asked.host, asked.engine, asked.backend
    engine = catalog.engines[name]
    commit = locked_engine(lock, catalog, name, where=asked.where, inventory=host.origin).commit
    patches = tuple(
        Patch(name=file, text=catalog.patch(file, where=f"catalog/engines/{name}.toml"))
        for file in engine.patches
    )
    toolchain = _toolchain(host, catalog, engine, backend)
    own_url = engine.python.url if engine.python else engine.repository
    url = host.spec.engine_sources.get(name, own_url)
    options = _cmake_options(asked, neighbours, engine)
    decides_bytes = {
        "engine": name,
        "commit": commit,
        "patches": [[patch.name, patch.text] for patch in patches],
        "backend": backend,
        "options": options,
        "targets": sorted(engine.targets),
        "toolchain": toolchain.model_dump(),
        # The features of a processor are not known here: such a release is its host's alone, and
        # the helper builds it again where the processor has changed.
        "native": host.name if host.spec.native_build else None,
    }
    digest = hashlib.sha256(json.dumps(decides_bytes, sort_keys=True).encode()).hexdigest()
    key = f"{commit[:12]}-{backend}-{digest[:8]}"
    return ReleasePlan(
        engine=name,
        kind=engine.kind,
        key=key,
        commit=commit,
        patches=patches,
        source_url=url,
        backend=backend,
        cmake_options=options,
        targets=engine.targets,
        wheels=_wheels(engine, url),
        toolchain=toolchain,
        native=host.spec.native_build,
        folder=f"{paths.engines}/{name}/{key}",
        scratch_bytes=_SCRATCH_BYTES[backend],
    )


def _wheels(engine: Engine, url: str) -> tuple[WheelPlan, ...]:
    wheels = engine.python.wheels if engine.python else ()
    return tuple(
        WheelPlan(url=f"{url.rstrip('/')}/{quoted_path(w.file)}", **w.model_dump()) for w in wheels
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
    """The release of CUDA that builds for a host. Raises CorralError for one that cannot."""
    source = catalog.drivers.get(host.spec.platform)
    release = host.spec.cuda_toolkit or (source.toolkit_release if source else None)
    if release is None:
        what = f"no CUDA toolkit is named for {host.spec.platform}"
        step = f'add "cuda_toolkit" to the host, or catalog/drivers/{host.spec.platform}.toml'
        raise CorralError(host.name, what, step)
    if not versions.at_least(release, engine.minimum_toolkit):
        what = f"CUDA toolkit {release} is too old: {engine.kind} needs {engine.minimum_toolkit}"
        raise CorralError(host.name, what, 'name another as "cuda_toolkit" of the host')
    capability = host.spec.gpus.compute_capability if host.spec.gpus else None
    if capability and not versions.builds_for(release, capability):
        least = versions.minimum_toolkit(capability)
        newer = versions.key(least) > versions.key(release)
        way = f"that takes {least}" if newer else "not any more"
        what = f"CUDA toolkit {release} does not build for compute capability {capability}: {way}"
        raise CorralError(host.name, what, 'name another as "cuda_toolkit" of the host')
    return release


def _cmake_options(
    asked: Requested, neighbours: Sequence[Requested], engine: Engine
) -> tuple[str, ...]:
    if engine.python:
        return ()
    found = engine_module(asked.kind).cmake_options(
        engine,
        backend=asked.backend,
        cuda_architectures=_cuda_architectures(asked.host),
        kv_pairs=_kv_pairs(neighbours, asked.engine),
        native=asked.host.spec.native_build,
    )
    return tuple(found)


def _cuda_architectures(host: Host) -> str | None:
    """``80`` for compute capability 8.0, as CMAKE_CUDA_ARCHITECTURES wants it."""
    capability = host.spec.gpus.compute_capability if host.spec.gpus else None
    return capability.replace(".", "") if capability else None


def _kv_pairs(requests: Sequence[Requested], engine: str) -> frozenset[KvPair]:
    """Pairs of cache types that the GPU kernels of an engine's release shall know."""
    return frozenset(r.kv_pair for r in requests if r.engine == engine and r.kv_pair)
