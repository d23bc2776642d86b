"""The model whose files the tests use, named once: the one that comes with the server. No test here runs it."""

from typing import Final

from server.demo import MODEL_DIR, SERVED_NAME

MODEL: Final = "demo"
FOLDER: Final = MODEL_DIR
NAME: Final = SERVED_NAME
