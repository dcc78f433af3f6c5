"""The routes of vLLM's API server, each decided here.

As of vLLM 0.32: the routers below vllm/entrypoints, without those of flags that Corral refuses. A
key is asked for only below /v1, /v2, /inference and /cohere
(vllm/entrypoints/serve/middleware/authenticate.py): all other routes answer everybody, among them
POST /invocations, which is a whole chat completion.
"""

from __future__ import annotations

from collections.abc import Mapping

from corral.engines.routes import Routes
from corral.plan.gateway import HealthCheck, Route

# Each answers from its own request alone, and costs no more than a completion.
OPEN: tuple[Route, ...] = (
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    # Models that generate text have no embeddings: these two answer 404 then.
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/v1/rerank"),
    ("POST", "/v1/responses"),
)

_KEYLESS = "answers a completion or a part of one without a key"
# Below these a key is asked for.
_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_DISCLOSES = "discloses the server's settings or load, without a key"
_HEALTH = "shows the health of one member, not of the alias"
_CHANGES = "changes the server for all clients"
_OTHERS = "finds a stored answer of any client by its id"
_NOT_OPENAI = "no part of these APIs; a client that needs it can ask the server directly"
_SOUND = "passes audio files to a decoder, and no profile of Corral serves an audio model"

CLOSED: Mapping[Route, str] = {
    ("POST", "/invocations"): _KEYLESS,
    ("POST", "/tokenize"): _KEYLESS,
    ("POST", "/detokenize"): _KEYLESS,
    ("POST", "/generative_scoring"): _KEYLESS,
    ("POST", "/pooling"): _KEYLESS,
    ("POST", "/classify"): _KEYLESS,
    ("POST", "/score"): _KEYLESS,
    ("POST", "/rerank"): _KEYLESS,
    ("GET", "/metrics"): _DISCLOSES,
    ("GET", "/version"): _DISCLOSES,
    ("GET", "/load"): _DISCLOSES,
    ("GET", "/kv_event_sources"): _DISCLOSES,
    ("GET", "/tokenizer_info"): _DISCLOSES,
    ("GET", "/server_info"): _DISCLOSES,
    ("GET", "/is_sleeping"): _DISCLOSES,
    ("GET", "/is_paused"): _DISCLOSES,
    ("GET", "/weight_info"): _DISCLOSES,
    ("GET", "/get_world_size"): _DISCLOSES,
    ("GET", "/fault_tolerance/status"): _DISCLOSES,
    ("GET", "/docs"): _DISCLOSES,
    ("GET", "/redoc"): _DISCLOSES,
    ("GET", "/openapi.json"): _DISCLOSES,
    ("GET", "/health"): _HEALTH,
    ("GET", "/ready"): _HEALTH,
    ("GET", "/readyz"): _HEALTH,
    ("GET", "/ping"): _HEALTH,
    ("POST", "/ping"): _HEALTH,
    ("POST", "/scale_elastic_ep"): _CHANGES,
    ("POST", "/is_scaling_elastic_ep"): _CHANGES,
    ("POST", "/fault_tolerance/apply"): _CHANGES,
    ("POST", "/start_profile"): _CHANGES,
    ("POST", "/stop_profile"): _CHANGES,
    ("POST", "/reset_prefix_cache"): _CHANGES,
    ("POST", "/reset_mm_cache"): _CHANGES,
    ("POST", "/reset_encoder_cache"): _CHANGES,
    ("POST", "/collective_rpc"): _CHANGES,
    ("POST", "/sleep"): _CHANGES,
    ("POST", "/wake_up"): _CHANGES,
    ("POST", "/release_kv_cache_memory"): _CHANGES,
    ("POST", "/pause"): _CHANGES,
    ("POST", "/resume"): _CHANGES,
    ("POST", "/abort_requests"): _CHANGES,
    ("POST", "/init_weight_transfer_engine"): _CHANGES,
    ("POST", "/shutdown_weight_transfer_engine"): _CHANGES,
    ("POST", "/start_weight_update"): _CHANGES,
    ("POST", "/start_draft_weight_update"): _CHANGES,
    ("POST", "/update_weights"): _CHANGES,
    ("POST", "/finish_weight_update"): _CHANGES,
    ("POST", "/update_weight_version"): _CHANGES,
    ("POST", "/weight_checker"): _CHANGES,
    ("POST", "/v1/load_lora_adapter"): _CHANGES,
    ("POST", "/v1/unload_lora_adapter"): _CHANGES,
    ("GET", "/v1/responses/:id"): _OTHERS,
    ("POST", "/v1/responses/:id/cancel"): _OTHERS,
    ("POST", "/v1/chat/completions/batch"): _NOT_OPENAI,
    ("POST", "/v1/systemone"): _NOT_OPENAI,
    ("POST", "/v1/score"): _NOT_OPENAI,
    ("POST", "/v2/embed"): _NOT_OPENAI,
    ("POST", "/v2/rerank"): _NOT_OPENAI,
    ("POST", "/v1/chat/completions/render"): _NOT_OPENAI,
    ("POST", "/v1/chat/completions/derender"): _NOT_OPENAI,
    ("POST", "/v1/completions/render"): _NOT_OPENAI,
    ("POST", "/v1/completions/derender"): _NOT_OPENAI,
    ("POST", "/v1/messages/render"): _NOT_OPENAI,
    ("POST", "/v1/responses/render"): _NOT_OPENAI,
    ("POST", "/cohere/v2/chat/render"): _NOT_OPENAI,
    ("POST", "/inference/v1/generate"): _NOT_OPENAI,
    ("POST", "/cohere/v2/chat"): _NOT_OPENAI,
    ("POST", "/v1/audio/transcriptions"): _SOUND,
    ("POST", "/v1/audio/translations"): _SOUND,
    ("GET", "/v1/realtime"): _SOUND,
}

# While the server loads its port refuses; once its engine has ended it answers 503.
HEALTH = HealthCheck(path="/health")

ROUTES = Routes(
    open=OPEN,
    closed=CLOSED,
    health=HEALTH,
    keyless=tuple(route for route in CLOSED if not route[1].startswith(_GUARDED)),
)
