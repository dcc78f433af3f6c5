"""What `corral fit` prints: a table per device, and a bar per GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from corral.fit.answer import Answer, Row
from corral.fit.offers import Offer
from corral.fit.safetensors.answer import CountedAnswer
from corral.fit.safetensors.offers import BATCH_TOKENS, SLOTS, ParallelOffer
from corral.plan.placement import ResolvedPlacement

_BAR_CELLS = 50
# Parts of a bar, in order: what they stand for.
_PARTS = (("█", "weights"), ("▓", "KV"), ("▒", "compute, CUDA"), ("░", "others"), ("·", "free"))


def answer_lines(found: Answer) -> list[str]:
    """The table, the bars, the placement, and the reason for an unknown need."""
    heads = ["device", "weights", "KV", "compute", "runtime", "others", "of", "free", ""]
    lines = aligned([heads, *[_cells(row) for row in found.rows]])
    bars = [_bar(row) for row in found.rows if row.memory_mib and row.device != "host"]
    if bars:
        lines += ["", *bars, "  ".join(f"{mark} {part}" for mark, part in _PARTS)]
    if isinstance(found, CountedAnswer):
        return [*lines, "", *_counted_lines(found)]
    if found.unknown:
        lines += ["", f"GiB of weights alone. {placed(found.placement)}"]
        return [*lines, f"Unknown: {found.unknown}. The weights are exact."]
    exact = "GiB. Weights and KV are exact, the rest are upper bounds."
    lines += ["", f"{exact} {placed(found.placement)}"]
    if len(set(found.placement.tensor_split)) > 1:
        shares = ", ".join(f"{share:g}" for share in found.placement.tensor_split)
        lines.append(f"GPUs share it by memory: tensor_split = [{shares}] in the profile says so.")
    return lines


def _counted_lines(found: CountedAnswer) -> Iterator[str]:
    """What the KV cache holds, or why the engine would not serve."""
    if found.unknown and not found.refusal:
        yield f"Unknown: {found.unknown}."
        return
    yield "GiB. Weights are exact; KV is what the upper bounds of the rest leave of its share."
    if found.cache:
        yield (
            f"The KV cache of each copy holds {found.cache.tokens:,} tokens; all together serve "
            f"{found.cache.requests:,.2f} requests of the profile's length at a time."
        )
    if found.refusal:
        yield f"The engine would refuse it: {found.refusal}."
        yield f"Next: {found.next_step}"


def offer_lines(listed: Sequence[Offer], parallel: Sequence[ParallelOffer] = ()) -> list[str]:
    """One line for each offer, best first."""
    if not listed and not parallel:
        return ["nothing fits, not even 4,096 tokens with q4_0"]
    return [*(_offer_lines(listed) if listed else ()), *_parallel_lines(parallel)]


def _parallel_lines(listed: Sequence[ParallelOffer]) -> list[str]:
    """Offers of engines that count their own memory; requests are of one length, to compare."""
    if not listed:
        return []
    heads = ["quant", "GiB a GPU", "tensor", "data", "experts", "KV", "context tokens"]
    heads += ["cache tokens", "requests at a time"]
    rows = [
        [
            offer.quant,
            gib(offer.weights_mib),
            str(offer.tensor_parallel),
            str(offer.data_parallel),
            "whole" if offer.expert_parallel else "divided",
            offer.kv_type,
            f"{offer.context_tokens:,}",
            f"{offer.cache_tokens:,}",
            f"{offer.requests:,.2f} of {offer.request_tokens:,} tokens",
        ]
        for offer in listed
    ]
    about = (
        f"tensor_parallel x data_parallel, gpu_memory_utilization 0.9, {SLOTS} slots, "
        f"batch_tokens {BATCH_TOKENS:,}; whole experts: expert_parallel = true."
    )
    return [*aligned([heads, *rows]), "", about]


def _offer_lines(listed: Sequence[Offer]) -> list[str]:
    heads = ["quant", "GiB", "KV", "context tokens", "on GPUs", "VRAM left", "host GiB"]
    rows = [
        [
            offer.quant,
            gib(offer.weights_mib),
            offer.kv_type,
            f"{offer.context_tokens:,}",
            _share(offer),
            gib(offer.free_vram_mib),
            gib(offer.host_mib),
        ]
        for offer in listed
    ]
    return [*aligned([heads, *rows]), "", 'One slot; less than all is placement = "auto".']


def _share(offer: Offer) -> str:
    """The share of weights on GPUs, without embeddings, which never are."""
    shares = {"gpu": "all", "cpu": "none", "auto": f"{offer.weights_on_gpus_percent}%"}
    return shares[offer.placement]


def placed(placement: ResolvedPlacement) -> str:
    """A placement as a sentence."""
    return f"{placement.summary[0].upper()}{placement.summary[1:]}."


def _cells(row: Row) -> list[str]:
    sizes = (row.weights_mib, row.kv_mib, row.compute_mib, row.runtime_mib, row.others_mib)
    known = [gib(mib) if mib is not None else "?" for mib in (row.memory_mib, row.free_mib)]
    return [row.device, *(gib(mib) for mib in sizes), *known, row.verdict]


def _bar(row: Row) -> str:
    used = [row.weights_mib, row.kv_mib, row.compute_mib + row.runtime_mib, row.others_mib]
    memory_mib = row.memory_mib or 1
    ends = [min(round(_BAR_CELLS * sum(used[: n + 1]) / memory_mib), _BAR_CELLS) for n in range(4)]
    starts = [0, *ends[:-1]]
    marks = "".join(
        mark * (end - start) for (mark, _), start, end in zip(_PARTS, starts, ends, strict=False)
    )
    total_mib = sum(used)
    over = "  does not fit" if not row.fits else ""
    share = f"{gib(total_mib)} of {gib(memory_mib)} GiB"
    return f"{row.device}  {marks.ljust(_BAR_CELLS, _PARTS[-1][0])}  {share}{over}"


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; the first and the last are left-aligned."""
    table = [list(row) for row in rows]
    widths = [max(len(row[n]) for row in table) for n in range(len(table[0]))]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if n in (0, last) else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def gib(mib: int) -> str:
    """A size in GiB."""
    return f"{mib / 1024:.1f}"
