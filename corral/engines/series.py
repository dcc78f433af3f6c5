"""Time series of Prometheus in which a server tells of its work."""

from __future__ import annotations

from typing import NamedTuple


class Series(NamedTuple):
    """Names of an engine's series; empty where its server has none.

    + generated_tokens: counter; + generating_seconds: counter of the time that these took
    + running, waiting: requests; + kv_used: share of the KV cache, from 0 to 1
    """

    generated_tokens: str = ""
    generating_seconds: str = ""
    running: str = ""
    waiting: str = ""
    kv_used: str = ""
