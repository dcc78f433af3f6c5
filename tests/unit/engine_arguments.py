"""All command lines of an engine for one profile, as text; run to write what the test compares."""

from __future__ import annotations

import json
import shlex

from corral.catalog.entries import EngineKind, load_catalog
from corral.catalog.profile import Profile
from corral.engines import engine_module, problems, resolve_placement
from corral.engines.flag_table import Settings
from corral.export.env import split
from corral.plan.instance import Endpoint
from tests.samples import EXAMPLES
from tests.unit.engine_profiles import PORTABLE, profile

KINDS: tuple[EngineKind, ...] = ("llama.cpp", "ik_llama.cpp")
OF_IK = {
    "runtime_repack": True,
    "load_mode": "mlock",
    "attention_max_batch_mib": 512,
    "mla_mode": 3,
    "graph_reuse": True,
    "split_mode": "graph",
    "split_mode_graph_scheduling": True,
    "fused_moe": False,
}


def arguments(kind: EngineKind, made: Profile, gpus: int) -> dict[str, object]:
    """By program; words that need quotes have them."""
    module, placement = engine_module(kind), resolve_placement(made, gpus=gpus)
    socket = Endpoint(socket="/x/s.sock") if made.listen == "unix" else None
    if impossible := problems(kind, made, gpus=gpus):
        return {"problems": [list(problem) for problem in impossible]}
    argv = module.argv(
        "/x/llama-server",
        Settings(
            profile=made,
            model="/x/model.gguf",
            alias="small",
            endpoint=socket or Endpoint(address="127.0.0.1", port=8001),
            key_file="/x/keys",
            placement=placement,
            gpus=gpus,
            chat_template_file="/x/t.jinja" if made.chat_template_file else None,
        ),
    )
    fit = module.fit_argv(made, programs="/x", model="/x/model.gguf", placement=placement)
    bench = module.bench_arguments(
        made, placement, programs="/x", model="/x/model.gguf", repetitions=3
    )
    perplexity = module.perplexity_arguments(
        made, placement, program="/x/p", model="/x/model.gguf", text="/x/text"
    )
    variables, words = split(list(argv[1:]), module.flags)
    return {
        "server": shlex.join(argv),
        "fit": shlex.join(fit) if fit else None,
        "bench": [[shlex.join(one.argv), one.repeat, one.lines] for one in bench],
        "left out of bench": list(module.left_out(made)),
        "perplexity": shlex.join(perplexity),
        "variables": {name: variables[name] for name in sorted(variables)},
        "no variable": shlex.join(words),
        "keyed": list(module.keyed_routes(made)),
        "problems": [],
    }


def main() -> None:
    """Print what the test compares with."""
    profiles = dict(load_catalog(EXAMPLES / "catalog").profiles)
    profiles["all that both have"] = profile(**PORTABLE)
    profiles["all that ik_llama.cpp has"] = profile(**{**PORTABLE, **OF_IK})
    found = {
        f"{kind} {name} {gpus}": arguments(kind, made, gpus)
        for kind in KINDS
        for name, made in profiles.items()
        for gpus in (0, 2)
    }
    kept = {
        name: one.model_dump(mode="json", exclude_defaults=True) for name, one in profiles.items()
    }
    print(json.dumps({"profiles": kept, "arguments": found}, indent=1))


if __name__ == "__main__":
    main()
