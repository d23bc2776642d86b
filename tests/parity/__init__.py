"""The same messages through transformers and qwen-vl-utils, as the model card's Quick Start has it, and through the
server. `python -m tests.parity --help` tells how to run it; `reference.py` also serves the end-to-end tests."""
