"""Which routes of llama-servers a gateway opens to its clients: each one is decided here.

The routes are those of the pinned sources (llama.cpp: tools/server/server.cpp; ik_llama.cpp:
examples/server/server.cpp). What stands in neither list is closed, so that a new route upstream
stays closed until somebody decides it; tests/lab/test_engine_routes.py says which ones are new.
"""

from __future__ import annotations

from collections.abc import Mapping

from corral.engines.routes import Routes
from corral.plan.gateway import HealthCheck, Route

# Each of them answers from its own request alone, and costs what a completion costs.
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

_STREAMS = (
    "streams of all clients are found by a name that a client chose: others read and end them"
)
_CONTROL = "acts on a running request of any client, found by its id"
_SECOND_NAME = "another name of a route below /v1; one name each is checked"
_NOT_OPENAI = "no client of these APIs asks for it; whoever needs it reaches the server itself"
_TELLS = "tells of the server: its settings, its template, its load"
_PROMPTS = "shows or keeps the prompts of all clients"
_CHANGES = "changes the server for all clients"
_SOUND = "hands sound files to a decoder, and no profile of Corral's serves a model that hears"
_REACHES_OUT = "the server would run tools, or fetch addresses, for the client"
_HEALTH = "the health of one server, whichever was chosen, says nothing about an alias"

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
    ("GET", "/metrics"): _TELLS,
    ("GET", "/props"): _TELLS,
    ("GET", "/v1/props"): _TELLS,
    ("GET", "/version"): _TELLS,
    ("GET", "/lora-adapters"): _TELLS,
    ("GET", "/control-vectors"): _TELLS,
    ("GET", "/zstd_get_configs"): _TELLS,
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
    ("GET", "/models/sse"): _TELLS,
    ("POST", "/v1/audio/transcriptions"): _SOUND,
    ("POST", "/audio/transcriptions"): _SOUND,
    ("GET", "/cors-proxy"): _REACHES_OUT,
    ("POST", "/cors-proxy"): _REACHES_OUT,
    ("GET", "/tools"): _REACHES_OUT,
    ("POST", "/tools"): _REACHES_OUT,
}

# llama.cpp answers on this path, ik_llama.cpp has no such route; both say neither while they load,
# and neither waits for a prompt before it answers.
HEALTH = HealthCheck(path="/v1/health", answer='"status":"ok"|"File Not Found"')

ROUTES = Routes(open=OPEN, closed=CLOSED, health=HEALTH)
