"""Names of the chat templates that are built into the engine.

Source: src/llama-chat.cpp, LLM_CHAT_TEMPLATES, as of commit 0c1e57098bba.
"""

from __future__ import annotations

_NAMES = """
    bailing bailing-think bailing2 chatglm3 chatglm4 chatml command-r deepseek deepseek-ocr
    deepseek2 deepseek3 exaone-moe exaone3 exaone4 falcon3 gemma gigachat glmedge gpt-oss granite
    granite-4.0 granite-4.1 grok-2 hunyuan-dense hunyuan-moe hunyuan-vl kimi-k2 llama2 llama2-sys
    llama2-sys-bos llama2-sys-strip llama3 llama4 megrez minicpm mistral-v1 mistral-v3
    mistral-v3-tekken mistral-v7 mistral-v7-tekken monarch openchat orion pangu-embedded phi3 phi4
    rwkv-world seed_oss smolvlm solar-open vicuna vicuna-orca yandex zephyr
"""

BUILT_IN = frozenset(_NAMES.split())
