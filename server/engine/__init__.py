"""The engine room: what turns a prompt into tokens. `vllm.py` is the project's only importer of vllm."""
