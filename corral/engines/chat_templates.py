"""Chat templates that the engines have built in, by name."""

from __future__ import annotations

_LLAMA_CPP = """
    bailing bailing-think bailing2 chatglm3 chatglm4 chatml command-r deepseek deepseek-ocr
    deepseek2 deepseek3 exaone-moe exaone3 exaone4 falcon3 gemma gigachat glmedge gpt-oss granite
    granite-4.0 granite-4.1 grok-2 hunyuan-dense hunyuan-moe hunyuan-vl kimi-k2 llama2 llama2-sys
    llama2-sys-bos llama2-sys-strip llama3 llama4 megrez minicpm mistral-v1 mistral-v3
    mistral-v3-tekken mistral-v7 mistral-v7-tekken monarch openchat orion pangu-embedded phi3 phi4
    rwkv-world seed_oss smolvlm solar-open vicuna vicuna-orca yandex zephyr
"""

_IK_LLAMA_CPP = """
    bailing bailing-think bailing2 bitnet chatglm3 chatglm4 chatml command-r deepseek deepseek2
    deepseek3 exaone3 falcon3 falcon_e gemma gigachat gpt-oss granite grok-2 hunyuan-moe kimi-k2
    llama2 llama2-sys llama2-sys-bos llama2-sys-strip llama3 llama4 megrez minicpm mistral-v1
    mistral-v3 mistral-v3-tekken mistral-v7 monarch openchat orion phi3 rwkv-world seed_oss vicuna
    vicuna-orca zephyr
"""

# Mainline: src/llama-chat.cpp, LLM_CHAT_TEMPLATES.
LLAMA_CPP = frozenset(_LLAMA_CPP.split())
# ik_llama.cpp: src/llama.cpp, LLM_CHAT_TEMPLATES.
IK_LLAMA_CPP = frozenset(_IK_LLAMA_CPP.split())
