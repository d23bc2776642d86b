"""Finds the model's folder: the bundled demo model, a folder, or a download from the hub; completes what is missing."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server import demo
from server.engine.protocol import StartupError

DEMO = "demo"
FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors", "*.py"]
"""What a served model needs from a hub repository: no pickled weights, no training leftovers.

Code that a model brings along is never run unless the operator says `--engine-arg trust_remote_code=true`.
"""

VIDEO_SETTINGS = "video_preprocessor_config.json"
VIDEO_MIN_PIXELS = 128 * 28 * 28
VIDEO_MAX_PIXELS = 768 * 28 * 28
"""Budget of a frame in qwen-vl-utils 0.0.14. Without it transformers would allow a frame 12,845,056 pixels."""
PROCESSORS = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}
"""transformers' processors of the model types whose checkpoints may come without settings for videos."""


def find_checkpoint(model: str, revision: str | None, state_dir: Path, report: Callable[[str], None]) -> Path:
    """The folder with the model's files. Blocking; a download reports its progress.

    Raises:
        StartupError: the folder or repository does not exist, or cannot be read or reached.
    """
    if model == DEMO:
        return demo.MODEL_DIR
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _download(model, revision, report)
    if not (folder / "config.json").is_file():
        raise StartupError(f"{folder} holds no config.json.", "Name a folder in Hugging Face format.")
    return _with_video_settings(folder.resolve(), state_dir)


def served_names(model: str, configured: list[str]) -> list[str]:
    """The names that clients may ask for, the first being the one that replies carry."""
    if configured:
        return configured
    if model == DEMO:
        return [demo.SERVED_NAME]
    folder = Path(model).expanduser()
    return [folder.resolve().name if folder.is_dir() else model]


def _download(model: str, revision: str | None, report: Callable[[str], None]) -> Path:
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise StartupError(
            f"There is no folder {model}.", "Give --model demo, a folder, or a hub id such as MBZUAI/AIN."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        path = snapshot_download(model, revision=revision, allow_patterns=FILES, tqdm_class=_progress(report))
        return Path(path)
    except RepositoryNotFoundError as error:
        raise StartupError(
            f"The hub has no model {model} that you may read.", "Check the name; for a private model set HF_TOKEN."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise StartupError(
            f"{model} could not be downloaded: {type(error).__name__}.",
            "Check the network, or download it elsewhere and give --model the folder. A broken download goes on "
            "where it stopped.",
        ) from error


def _progress(report: Callable[[str], None]) -> type[Any]:
    """A tqdm class, as the hub's client wants one, that speaks to our console instead of drawing bars."""
    from tqdm import tqdm

    class Progress(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # The client passes a `name` that plain tqdm does not know.
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere(), "mininterval": 0.5})

        def display(self, *_: Any, **__: Any) -> None:
            if self.total and self.unit == "B":
                report(f"{self.n / 1e9:.1f} of {self.total / 1e9:.1f} GB")
            elif self.total:
                report(f"{self.n} of {self.total} files")

    return Progress


class _Nowhere:
    """A stream that keeps nothing."""

    def write(self, _: str) -> int:
        return 0

    def flush(self) -> None:
        return None


def _with_video_settings(folder: Path, state_dir: Path) -> Path:
    """A folder whose video limits are stated; AIN's own has none, and a default meant for single pictures applies.

    The model's folder is left alone: a second one holds links to its files and the file that is missing.
    """
    if (folder / VIDEO_SETTINGS).exists() or not (folder / "preprocessor_config.json").exists():
        return folder
    processor = PROCESSORS.get(str(_read_object(folder / "config.json").get("model_type")))
    if processor is None:
        return folder
    settings = json.dumps(video_settings(_read_object(folder / "preprocessor_config.json"), processor), indent=2)
    files = {file.name: file.resolve() for file in sorted(folder.iterdir())}
    # Named by all that is in it, so that it never has to be brought up to date.
    content = "\n".join([settings, *(f"{name}={target}" for name, target in files.items())])
    completed = state_dir / "models" / hashlib.sha256(content.encode()).hexdigest()[:16]
    if not completed.is_dir():
        _link(completed, files, settings)
    return completed


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty for anything else, of which the family tells when it reads the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _link(completed: Path, files: dict[str, Path], settings: str) -> None:
    """Make the folder aside and move it into place, so that servers which start at once never see half of it."""
    completed.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=completed.parent))
    for name, target in files.items():
        (aside / name).symlink_to(target)
    (aside / VIDEO_SETTINGS).write_text(settings, encoding="utf-8")
    try:
        aside.rename(completed)
    except OSError:
        shutil.rmtree(aside)
        if not completed.is_dir():  # else another server was quicker
            raise


def video_settings(picture: dict[str, Any], processor: str) -> dict[str, Any]:
    """A video preprocessor's settings made from the picture preprocessor's, with qwen-vl-utils' frame budget."""
    shared = ("image_mean", "image_std", "patch_size", "temporal_patch_size", "merge_size")
    return {
        **{name: picture[name] for name in shared if name in picture},
        "size": {"shortest_edge": VIDEO_MIN_PIXELS, "longest_edge": VIDEO_MAX_PIXELS},
        "do_convert_rgb": True,
        "processor_class": processor,
        "video_processor_type": "Qwen2VLVideoProcessor",
    }
