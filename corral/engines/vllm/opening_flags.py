"""Flags and variables of vLLM that open more than requests with a key; refused in every profile.

As of vLLM 0.32: `vllm serve --help=all`, vllm/envs.py and the routes below vllm/entrypoints.
"""

from __future__ import annotations

from typing import NamedTuple


class Opening(NamedTuple):
    """Flags with one reason to refuse them.

    + reason: completes "is refused: it ..."
    + flags: every spelling; + switches: flags that ``--no-`` negates, without dashes
    + variables: environment variables with the same effect
    """

    reason: str
    flags: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every flag and variable."""
        switches = [name for one in self.switches for name in (f"--{one}", f"--no-{one}")]
        return (*self.flags, *switches, *self.variables)


OPENINGS = (
    Opening(
        "runs Python code that is no part of the release",
        (
            *("--middleware", "--io-processor-plugin", "--logits-processors"),
            *("--tool-parser-plugin", "--reasoning-parser-plugin", "--model-class-overrides"),
            *("--worker-cls", "--worker-extension-cls", "--scheduler-cls", "--code-revision"),
            # Both have a key that names a class or a plugin.
            *("--structured-outputs-config", "--ec-manager-config"),
        ),
        ("trust-remote-code",),
        (
            *("VLLM_PLUGINS", "VLLM_ALLOW_INSECURE_SERIALIZATION", "VLLM_RUST_FRONTEND_PATH"),
            *("VLLM_USE_RUST_FRONTEND", "PYTHONPATH", "LD_PRELOAD"),
        ),
    ),
    Opening(
        "loads files that the lock file does not know",
        (
            *("--tokenizer", "--tokenizer-revision", "--revision", "--hf-config-path"),
            *("--download-dir", "--lora-modules", "--default-mm-loras"),
            *("--mm-encoder-fp8-scale-path",),
        ),
        ("enable-lora",),
        (
            *("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_LORA_RESOLVER_CACHE_DIR"),
            *("VLLM_LORA_RESOLVER_HF_REPO_LIST", "VLLM_MODEL_REDIRECT_PATH"),
            *("VLLM_USE_MODELSCOPE", "HF_HUB_OFFLINE"),
        ),
    ),
    Opening(
        "lets a request run tools, or fetch or read files from the server's host",
        ("--tool-server", "--allowed-local-media-path", "--allowed-media-domains"),
        variables=("VLLM_MEDIA_CONNECTOR", "VLLM_MEDIA_URL_ALLOW_REDIRECTS"),
    ),
    Opening(
        "lets a request bring a template, tensors or tokens that the server must not trust",
        (),
        (
            *("trust-request-chat-template", "trust-request-mm-kwargs", "enable-prompt-embeds"),
            *("enable-mm-embeds", "enable-trace-replay"),
        ),
    ),
    Opening(
        "opens routes that change the server or show its inside, most of them without a key",
        (
            *("--weight-transfer-config", "--profiler-config", "--elastic-ep-max-dp-size"),
            *("--fault-tolerance-config",),
        ),
        (
            *("enable-sleep-mode", "enable-elastic-ep", "enable-fault-tolerance"),
            *("enable-scale-out", "tokens-only", "enable-tokenizer-info-endpoint"),
        ),
        ("VLLM_SERVER_DEV_MODE", "VLLM_ENABLE_RESPONSES_API_STORE", "VLLM_ENABLE_COHERE_API"),
    ),
    Opening(
        "changes which paths need a key, where the server listens, or which clients may use it",
        (
            *("--root-path", "--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs"),
            *("--ssl-cert-reqs", "--ssl-ciphers"),
        ),
        ("enable-ssl-refresh",),
        ("VLLM_HOST_IP", "VLLM_PORT", "VLLM_LOOPBACK_IP"),
    ),
    Opening(
        "lets web pages of other origins use the server",
        ("--allowed-origins", "--allowed-methods", "--allowed-headers"),
        ("allow-credentials",),
    ),
    Opening(
        "listens on another port, where nobody asks for a key",
        (
            *("--grpc", "--grpc-port", "--data-parallel-rpc-port", "-dpp"),
            *("--data-parallel-supervisor-port", "--data-parallel-multi-port-external-lb", "-dpm"),
            *("--dp-supervisor-probe-failure-threshold", "--dp-supervisor-probe-interval-s"),
            *("--dp-supervisor-probe-timeout-s", "--kv-events-config"),
        ),
        variables=("VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_P2P_SIDE_CHANNEL_HOST"),
    ),
    Opening(
        "lets other machines take part in the model's work, over connections without keys",
        (
            *("--nnodes", "-n", "--node-rank", "-r", "--master-addr", "--master-port"),
            *("--headless", "--distributed-executor-backend"),
            *("--data-parallel-address", "-dpa", "--data-parallel-backend", "-dpb"),
            *("--data-parallel-rank", "-dpn", "--data-parallel-start-rank", "-dpr"),
            *("--data-parallel-size-local", "-dpl", "-dpe", "-dph"),
        ),
        ("data-parallel-external-lb", "data-parallel-hybrid-lb", "ray-workers-use-nsight"),
        ("VLLM_DP_MASTER_IP", "VLLM_DP_MASTER_PORT", "VLLM_DP_RANK", "VLLM_DP_SIZE"),
    ),
    Opening(
        "sends prompts, or what follows from them, to other programs",
        (
            *("--kv-transfer-config", "--ec-transfer-config", "--kv-offloading-backend"),
            *("--otlp-traces-endpoint", "--collect-detailed-traces"),
        ),
        variables=("VLLM_USAGE_STATS_SERVER", "VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK"),
    ),
    Opening(
        "writes prompts, answers or keys to the journal",
        (
            *("--max-log-len", "--log-config-file", "--log-level", "--logging-config"),
            *("--uvicorn-log-level",),
        ),
        ("enable-log-requests", "enable-log-outputs", "enable-log-deltas", "log-error-stack"),
        (
            *("VLLM_LOGGING_LEVEL", "VLLM_LOGGING_CONFIG_PATH", "VLLM_CONFIGURE_LOGGING"),
            *("VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "VLLM_TRACE_FUNCTION"),
        ),
    ),
    Opening(
        "writes files that nobody reads or removes",
        ("--mm-encoder-fp8-scale-save-path",),
        variables=("VLLM_DEBUG_DUMP_PATH",),
    ),
    Opening(
        "keeps the API server running without an engine, so that nothing restarts it",
        variables=("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH",),
    ),
    Opening(
        "shows a secret in the list of processes or in the environment",
        ("--hf-token",),
        variables=("VLLM_API_KEY", "HF_TOKEN", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"),
    ),
)

# Flag or variable -> reason to refuse it.
REASONS: dict[str, str] = {name: opening.reason for opening in OPENINGS for name in opening.names}
