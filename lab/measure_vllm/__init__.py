"""What a vLLM server says of its memory, model by model and setting by setting, on one GPU or two.

The modules here, but for the load test, need Python's standard library alone: the machine with the
GPU may have no more than that and vLLM.
"""
