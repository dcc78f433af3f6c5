"""The figures in a vLLM server's log and in its /metrics."""

from __future__ import annotations

import re

_NUMBER = r"([\d.]+)"
_LINES = {
    "weights_gib": rf"Model loading took {_NUMBER} GiB",
    "load_s": rf"Model loading took [\d.]+ GiB(?: memory)? and {_NUMBER} seconds",
    "kv_gib": rf"Available KV cache memory: {_NUMBER} GiB",
    "kv_tokens": r"GPU KV cache size: ([\d,]+) tokens",
    "max_concurrency": rf"Maximum concurrency for [\d,]+ tokens per request: {_NUMBER}x",
    "graphs_estimated_gib": rf"Estimated CUDA graph memory: {_NUMBER} GiB",
    "graphs_gib": rf"Graph capturing finished in \d+ secs, took {_NUMBER} GiB",
    "graphs_s": rf"Graph capturing finished in {_NUMBER} secs",
    "activation_peak_gib": rf"torch peak memory increase: {_NUMBER}GiB",
    "other_gib": rf"non-torch forward increase memory: {_NUMBER}GiB",
    "free_at_start_gib": rf"Initial free memory: {_NUMBER} GiB",
    "requested_gib": rf"Requested memory: [\d.]+ \(util\), {_NUMBER} GiB",
    "init_s": rf"init engine \(.*?\) took {_NUMBER} s",
    "longest_that_fits": r"estimated maximum model length is (\d+)",
}
# One line of each rank, in the order in which they came.
_RANKS = {
    "rank_weights_gib": rf"weights memory: {_NUMBER}GiB",
    "rank_activation_peak_gib": rf"torch peak memory increase: {_NUMBER}GiB",
    "rank_other_gib": rf"non-torch forward increase memory: {_NUMBER}GiB",
    "rank_beside_kv_gib": rf"Total non KV cache memory: {_NUMBER}GiB",
    "rank_requested_gib": rf"Requested memory: [\d.]+ \(util\), {_NUMBER} GiB",
}
_WORDS = {
    "attention": r"Using (?:AttentionBackendEnum\.)?(\w+) (?:attention )?backend",
    "error": r"ValueError: (.*(?:memory|max_model_len).*)",
}


def read_log(log: str) -> dict[str, float | int | str | list[float]]:
    """What the log says, the last time it says it; and of several ranks what each of them says."""
    found: dict[str, float | int | str | list[float]] = {}
    for name, pattern in _RANKS.items():
        if len(matches := re.findall(pattern, log)) > 1:
            found[name] = [float(text.rstrip(".")) for text in matches]
    for name, pattern in _LINES.items():
        if matches := re.findall(pattern, log):
            text = matches[-1].replace(",", "").rstrip(".")
            found[name] = float(text) if "." in text else int(text)
    for name, pattern in _WORDS.items():
        if matches := re.findall(pattern, log):
            found[name] = matches[-1][:300]
    return found


def labels(metrics: str, name: str) -> dict[str, str]:
    """The labels of a metric's first sample."""
    found = re.search(rf"^{re.escape(name)}\{{(.*)\}}", metrics, re.MULTILINE)
    return dict(re.findall(r'(\w+)="([^"]*)"', found.group(1))) if found else {}


def label_of_each(metrics: str, name: str, label: str) -> list[str]:
    """One label of all samples of a metric: each engine has one."""
    samples = re.findall(rf"^{re.escape(name)}\{{(.*)\}}", metrics, re.MULTILINE)
    return [value for sample in samples for value in re.findall(rf'{label}="([^"]*)"', sample)]


def total(metrics: str, name: str) -> float | None:
    """The sum of a metric's samples."""
    found = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? ([\d.e+-]+)$", metrics, re.MULTILINE)
    return sum(float(value) for value in found) if found else None


def names(metrics: str) -> list[str]:
    """Every metric that the server offers."""
    return sorted(set(re.findall(r"^# TYPE (\S+) ", metrics, re.MULTILINE)))
