"""Names of the chat templates that are built into the engine.

Source: src/llama.cpp, LLM_CHAT_TEMPLATES, as of commit 8337e4cd3861.
"""

from __future__ import annotations

_NAMES = """
    bailing bailing-think bailing2 bitnet chatglm3 chatglm4 chatml command-r deepseek deepseek2
    deepseek3 exaone3 falcon3 falcon_e gemma gigachat gpt-oss granite grok-2 hunyuan-moe kimi-k2
    llama2 llama2-sys llama2-sys-bos llama2-sys-strip llama3 llama4 megrez minicpm mistral-v1
    mistral-v3 mistral-v3-tekken mistral-v7 monarch openchat orion phi3 rwkv-world seed_oss vicuna
    vicuna-orca zephyr
"""

BUILT_IN = frozenset(_NAMES.split())
