"""The routes of llama-servers that a gateway opens to its clients, each decided here.

The routes are those of the pinned sources (llama.cpp: tools/server/server.cpp; ik_llama.cpp:
examples/server/server.cpp). A route in neither list is closed, so that a new route upstream stays
closed until it is decided here; tests/lab/test_engine_routes.py reports new routes.
"""

from __future__ import annotations

from collections.abc import Mapping

from corral.engines.routes import Routes
from corral.plan.gateway import HealthCheck, Route

# Each answers from its own request alone, and costs no more than a completion.
OPEN: tuple[Route, ...] = (
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/chat/completions/input_tokens"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/v1/rerank"),
    ("POST", "/v1/reranking"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/responses/input_tokens"),
)

_STREAMS = "any client can find a stream by the name that its client chose, and read or end it"
_CONTROL = "acts on a running request of any client, found by its id"
_SECOND_NAME = "second name of a route below /v1; one name of each is checked"
_NOT_OPENAI = "no part of these APIs; a client that needs it can ask the server directly"
_DISCLOSES = "discloses the server's settings, template or load"
_PROMPTS = "shows or keeps the prompts of all clients"
_CHANGES = "changes the server for all clients"
_SOUND = "passes audio files to a decoder, and no profile of Corral serves an audio model"
_REACHES_OUT = "makes the server run tools or fetch addresses for the client"
_HEALTH = "shows the health of one member, not of the alias"

CLOSED: Mapping[Route, str] = {
    ("GET", "/v1/stream"): _STREAMS,
    ("DELETE", "/v1/stream"): _STREAMS,
    ("POST", "/v1/streams/lookup"): _STREAMS,
    ("POST", "/v1/chat/completions/control"): _CONTROL,
    ("GET", "/models"): _SECOND_NAME,
    ("POST", "/completions"): _SECOND_NAME,
    ("POST", "/chat/completions"): _SECOND_NAME,
    ("POST", "/chat/completions/input_tokens"): _SECOND_NAME,
    ("POST", "/responses"): _SECOND_NAME,
    ("POST", "/responses/input_tokens"): _SECOND_NAME,
    ("POST", "/embeddings"): _SECOND_NAME,
    ("POST", "/rerank"): _SECOND_NAME,
    ("POST", "/reranking"): _SECOND_NAME,
    ("POST", "/completion"): _NOT_OPENAI,
    ("POST", "/embedding"): _NOT_OPENAI,
    ("POST", "/infill"): _NOT_OPENAI,
    ("POST", "/tokenize"): _NOT_OPENAI,
    ("POST", "/detokenize"): _NOT_OPENAI,
    ("POST", "/apply-template"): _NOT_OPENAI,
    ("GET", "/"): _NOT_OPENAI,
    ("GET", "/health"): _HEALTH,
    ("GET", "/v1/health"): _HEALTH,
    ("GET", "/metrics"): _DISCLOSES,
    ("GET", "/props"): _DISCLOSES,
    ("GET", "/v1/props"): _DISCLOSES,
    ("GET", "/version"): _DISCLOSES,
    ("GET", "/lora-adapters"): _DISCLOSES,
    ("GET", "/control-vectors"): _DISCLOSES,
    ("GET", "/zstd_get_configs"): _DISCLOSES,
    ("GET", "/slots"): _PROMPTS,
    ("POST", "/slots/:id_slot"): _PROMPTS,
    ("GET", "/slots/list"): _PROMPTS,
    ("GET", "/list"): _PROMPTS,
    ("POST", "/delete_prompt"): _PROMPTS,
    ("POST", "/rename_prompt"): _PROMPTS,
    ("POST", "/load"): _PROMPTS,
    ("POST", "/save"): _PROMPTS,
    ("POST", "/rename"): _PROMPTS,
    ("POST", "/all"): _PROMPTS,
    ("GET", "/sessions"): _PROMPTS,
    ("POST", "/sessions"): _PROMPTS,
    ("POST", "/delete"): _PROMPTS,
    ("GET", "/vacuum"): _CHANGES,
    ("POST", "/zstd_incremental_maintenance"): _CHANGES,
    ("POST", "/zstd_enable_transparent"): _CHANGES,
    ("POST", "/zstd_update_transparent"): _CHANGES,
    ("POST", "/props"): _CHANGES,
    ("POST", "/lora-adapters"): _CHANGES,
    ("POST", "/control-vectors/load"): _CHANGES,
    ("POST", "/control-vectors/unload"): _CHANGES,
    ("POST", "/control-vectors/apply"): _CHANGES,
    ("POST", "/models"): _CHANGES,
    ("DELETE", "/models"): _CHANGES,
    ("POST", "/models/load"): _CHANGES,
    ("POST", "/models/unload"): _CHANGES,
    ("GET", "/models/sse"): _DISCLOSES,
    ("POST", "/v1/audio/transcriptions"): _SOUND,
    ("POST", "/audio/transcriptions"): _SOUND,
    ("GET", "/cors-proxy"): _REACHES_OUT,
    ("POST", "/cors-proxy"): _REACHES_OUT,
    ("GET", "/tools"): _REACHES_OUT,
    ("POST", "/tools"): _REACHES_OUT,
}

# llama.cpp answers on this path, ik_llama.cpp has no such route; neither gives these answers while
# it loads, and neither waits for a prompt before it answers.
HEALTH = HealthCheck(path="/v1/health", answer='"status":"ok"|"File Not Found"')

ROUTES = Routes(open=OPEN, closed=CLOSED, health=HEALTH)
