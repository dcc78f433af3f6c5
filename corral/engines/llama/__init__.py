"""The common parts of llama.cpp and its fork ik_llama.cpp: llama-server, GGUF, a cmake build."""
