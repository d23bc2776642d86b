"""The bundled demo model: a Qwen2-VL small enough to ship, and the code that made it.

Importing this package costs nothing: the picture maker, the training and the evaluation are imported by name.
"""

from pathlib import Path
from typing import Final

MODEL_DIR: Final = Path(__file__).parent / "model"
"""Folder in Hugging Face layout that the engine loads."""

SERVED_NAME: Final = "ain-demo"
"""The name clients ask for in the `model` field."""

__all__ = ["MODEL_DIR", "SERVED_NAME"]
