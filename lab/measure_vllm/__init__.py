"""What a vLLM server says of its memory, model by model and setting by setting, on one GPU.

The modules here need Python's standard library alone: the machine with the GPU may have no more
than that and vLLM.
"""
