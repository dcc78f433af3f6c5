"""Flags of the servers that open more than requests with a key, or change memory uncounted.

They are refused in every profile.

One table for both engines, by what the flags open. Mainline llama.cpp as of commit 0c1e57098bba,
common/arg.cpp; ik_llama.cpp as of commit 8337e4cd3861, common/common.cpp and common/log.h. A flag
that only one of them has is refused for both: the reason is the same, and a later release of the
other may gain it.
"""

from __future__ import annotations

from typing import NamedTuple


class Opening(NamedTuple):
    """Flags with one reason to refuse them.

    + reason: completes "is refused: it ..."
    + flags: every spelling, including short and negated ones, with dashes for underscores
    + variables: equivalent environment variables
    """

    reason: str
    flags: tuple[str, ...]
    variables: tuple[str, ...] = ()


OPENINGS = (
    Opening(
        "lets requests run programs, read and write files, or reach other servers from the host",
        (
            *("--tools", "--tools-runtime", "-ag", "--agent", "-no-ag", "--no-agent"),
            *("--mcp-servers-config", "--mcp-servers-json"),
            *("--ui-mcp-proxy", "--webui-mcp-proxy", "--no-ui-mcp-proxy", "--no-webui-mcp-proxy"),
            # A folder of programs that a request with a video starts.
            "--video-ffmpeg-dir",
        ),
        (
            *("LLAMA_ARG_TOOLS", "LLAMA_ARG_TOOLS_RUNTIME", "LLAMA_ARG_AGENT"),
            *("LLAMA_ARG_MCP_SERVERS_CONFIG", "LLAMA_ARG_MCP_SERVERS_JSON"),
            *("LLAMA_ARG_UI_MCP_PROXY", "LLAMA_ARG_VIDEO_FFMPEG_DIR"),
        ),
    ),
    Opening(
        "makes the server a router, whose clients choose and load other models",
        (
            *("--models-dir", "--models-preset", "--models-max"),
            *("--models-autoload", "--no-models-autoload"),
        ),
        (
            *("LLAMA_ARG_MODELS_DIR", "LLAMA_ARG_MODELS_PRESET", "LLAMA_ARG_MODELS_MAX"),
            "LLAMA_ARG_MODELS_AUTOLOAD",
        ),
    ),
    Opening(
        "serves or reads files of the host to requests",
        (
            *("--media-path", "--path", "-f", "--file", "-bf", "--binary-file", "--in-file"),
            *("-sysf", "-spf", "--system-prompt-file", "--grammar-file"),
            *("-jf", "--json-schema-file", "--banned-string-file", "--expiring-logit-bias-file"),
            *("--ui-config-file", "--webui-config-file"),
        ),
        ("LLAMA_ARG_STATIC_PATH", "LLAMA_ARG_UI_CONFIG_FILE"),
    ),
    Opening(
        "writes prompts, answers or states of slots to files of the host",
        (
            *("--log-file", "--log-prompts-dir", "--log-new", "--log-append", "--log-test"),
            *("-ld", "--logdir", "--slot-save-path", "--sql-save-file", "--sqlite-zstd-ext-file"),
            *("--prompt-cache", "--prompt-cache-all", "--prompt-cache-ro"),
            *("-lcd", "--lookup-cache-dynamic", "-lcs", "--lookup-cache-static"),
            *("-o", "--output", "--output-file"),
            *("--output-draft", "--draft-output", "--draft-output-file"),
        ),
        ("LLAMA_ARG_LOG_FILE",),
    ),
    Opening(
        "writes prompts and answers to the journal",
        (
            *("-v", "--verbose", "--log-verbose", "--verbose-prompt"),
            *("-lv", "--verbosity", "--log-verbosity", "-ptc", "--print-token-count"),
            *("-dkvc", "--dump-kv-cache"),
        ),
        ("LLAMA_ARG_LOG_VERBOSITY",),
    ),
    Opening(
        "lets web pages of other origins use the server",
        (
            *("--cors-origins", "--cors-methods", "--cors-headers"),
            *("--cors-credentials", "--no-cors-credentials"),
        ),
        (
            *("LLAMA_ARG_CORS_ORIGINS", "LLAMA_ARG_CORS_METHODS", "LLAMA_ARG_CORS_HEADERS"),
            "LLAMA_ARG_CORS_CREDENTIALS",
        ),
    ),
    Opening(
        "lets a request change settings for all clients",
        ("--props", "--lora-init-without-apply"),
        ("LLAMA_ARG_ENDPOINT_PROPS",),
    ),
    Opening(
        "sends the model's work to other machines, whose protocol has no keys",
        ("--rpc",),
        ("LLAMA_ARG_RPC",),
    ),
    Opening(
        "lets another process listen on the instance's port",
        ("--reuse-port",),
        ("LLAMA_ARG_REUSE_PORT",),
    ),
    Opening(
        "loads a file that the lock file does not know",
        (
            *("--lora", "--lora-scaled", "--control-vector", "--control-vector-scaled"),
            *("-md", "--model-draft", "--spec-draft-model", "-draft", "--draft-params"),
            *("-mm", "--mmproj", "--suffix-corpus"),
        ),
        ("LLAMA_ARG_MMPROJ", "LLAMA_ARG_SPEC_DRAFT_MODEL"),
    ),
    Opening(
        "downloads files that the lock file does not know",
        (
            *("-mu", "--model-url", "-dr", "--docker-repo", "-mmu", "--mmproj-url"),
            *("-hf", "-hfr", "--hf-repo", "-hff", "--hf-file"),
            *("-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf"),
            *("--embd-gemma-default", "--fim-qwen-1.5b-default", "--fim-qwen-3b-default"),
            *("--fim-qwen-7b-default", "--fim-qwen-7b-spec", "--fim-qwen-14b-spec"),
            *("--fim-qwen-30b-default", "--gpt-oss-20b-default", "--gpt-oss-120b-default"),
            *("--vision-gemma-4b-default", "--vision-gemma-12b-default"),
        ),
        (
            *("LLAMA_ARG_MODEL_URL", "LLAMA_ARG_DOCKER_REPO", "LLAMA_ARG_MMPROJ_URL"),
            *("LLAMA_ARG_HF_REPO", "LLAMA_ARG_HF_FILE", "LLAMA_ARG_SPEC_DRAFT_HF_REPO"),
        ),
    ),
    Opening(
        "changes memory, or the context of a slot, that is counted from keys of the profile",
        (
            *("-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified", "--kv-unified-per-slot"),
            *("--swa-full", "--no-host", "--max-gpu"),
            *("-nopo", "--no-op-offload", "--op-offload"),
            *("-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft", "--spec-draft-ngl"),
            *("-ctkd", "--cache-type-k-draft", "--spec-draft-type-k"),
            *("-ctvd", "--cache-type-v-draft", "--spec-draft-type-v"),
            *("-devd", "--device-draft", "-cd", "--ctx-size-draft"),
        ),
        (
            *("LLAMA_ARG_KV_UNIFIED", "LLAMA_ARG_KV_UNIFIED_PER_SLOT", "LLAMA_ARG_SWA_FULL"),
            *("LLAMA_ARG_NO_HOST", "LLAMA_ARG_N_GPU_LAYERS_DRAFT"),
        ),
    ),
    Opening(
        "shows a secret in the list of processes",
        ("--api-key", "-hft", "--hf-token"),
        ("LLAMA_API_KEY", "HF_TOKEN"),
    ),
    Opening(
        "changes where the server listens, or which clients may use it",
        ("--host", "--port", "--api-prefix", "--api-key-file", "--ssl-key-file", "--ssl-cert-file"),
        (
            *("LLAMA_ARG_HOST", "LLAMA_ARG_PORT", "LLAMA_ARG_API_PREFIX"),
            *("LLAMA_ARG_API_KEY_FILE", "LLAMA_ARG_SSL_KEY_FILE", "LLAMA_ARG_SSL_CERT_FILE"),
        ),
    ),
)

# Flag or variable -> reason to refuse it.
REASONS: dict[str, str] = {
    name: opening.reason for opening in OPENINGS for name in (*opening.flags, *opening.variables)
}
