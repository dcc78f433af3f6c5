"""What llama.cpp and its fork ik_llama.cpp have in common: llama-server, GGUF, a build by cmake."""
