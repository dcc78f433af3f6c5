"""Models in safetensors: stored headers, and the answers of `corral fit` by the engine's count."""
