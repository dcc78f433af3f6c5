"""Memory that vLLM needs: weights exactly, KV cache from what is left, bounds for the rest."""
