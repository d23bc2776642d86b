"""AIN Server: an OpenAI-compatible inference server for AIN and the Qwen2-VL family."""

__version__ = "0.1.0"
