"""Tensor patterns mean for Corral what std::regex finds, or are refused.

The verdicts are those of std::regex_search of g++ 12 for the three names; E: it throws.
"""

from __future__ import annotations

import pytest

from corral.catalog.patterns import PatternError, compiled, translated
from corral.fit.devices import HOST
from corral.fit.estimate import estimate
from tests.unit.fit_samples import AIR, MIB, model, placement, profile

NAMES = ("blk.10.ffn_up_exps.weight", "blk.3.attn_q.weight", "output.weight")
FOUND = {
    "exps": "100",
    r"blk\.[0-9]+\.ffn_(up|down|gate)_exps": "100",
    r"blk\.[[:digit:]]+\.ffn_.*_exps": "100",
    r"[[:digit:]]{2}\.attn": "000",
    r"blk\.(?:[0-9]|1[0-9])\.": "110",
    r"^blk\.[[:digit:]_]+\.": "110",
    r"ffn_(?!up)\w+_exps": "000",
    "weight$": "111",
    r"\.[^[:alpha:]]+\.": "110",
    "[a[]ttn": "010",
    r"\bffn": "100",
    r"attn\_q": "010",
    r"blk\.\d+\.attn_[qk]": "010",
    "e{2}": "000",
    "x+?p": "100",
}
REFUSED = {
    "(?i)EXPS": "E",
    "(?<=ffn_)up": "E",
    "(?<!ffn_)up": "E",
    "(?P<a>exps)": "E",
    "(?>exps)": "E",
    "a{": "E",
    "(?!up)+": "E",
    "[a--b]": "E",
    "[[:name:]]": "E",
    "(exps": "E",
    "[0-9": "E",
    # Python reads these otherwise.
    "exps++": "100",
    r"\x65xps": "100",
    r"\Ablk": "000",
    r"weight\Z": "000",
    r"(e)\1": "000",
    "[]": "000",
    "a}": "000",
    "exps\\": "E",
}


@pytest.mark.parametrize("pattern", FOUND)
def test_a_pattern_finds_what_the_engine_finds(pattern: str) -> None:
    verdicts = "".join(str(int(bool(compiled(pattern).search(name)))) for name in NAMES)
    assert verdicts == FOUND[pattern]


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_the_engine_reads_otherwise_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError, match=r"^(has|repeats|ends|is not) "):
        translated(pattern)


def test_a_posix_class_keeps_the_experts_on_the_host() -> None:
    """Read as Python's, it kept 333 MiB there instead of 69 GiB."""
    asked = profile(tensor_overrides=(r"blk\.[[:digit:]]+\.ffn_.*_exps=CPU",))
    placed = placement(tensor_overrides=asked.tensor_overrides)
    found = estimate(model(AIR), asked, placed, gpu_memory_mib=[49140])
    assert found.host.weights_bytes > 65 * 1024 * MIB
    assert found.gpus[HOST].weights_bytes < 10 * 1024 * MIB
