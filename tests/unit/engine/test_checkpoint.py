"""Where the model's files are found, and what is completed in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from server.demo import MODEL_DIR, SERVED_NAME
from server.engine.checkpoint import VIDEO_SETTINGS, find_checkpoint, served_names, video_settings
from server.engine.protocol import StartupError

PICTURES = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
    "image_processor_type": "Qwen2VLImageProcessor",
}


def silent(_: str) -> None: ...


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder such as AIN's: no settings for videos."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2_vl"}')
    (folder / "preprocessor_config.json").write_text(json.dumps(PICTURES))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def find(model: Path | str, state: Path) -> Path:
    return find_checkpoint(str(model), None, state, silent)


# ---- Folders


def test_the_bundled_model_is_its_own_folder(tmp_path: Path) -> None:
    assert find("demo", tmp_path) == MODEL_DIR
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_lacks_nothing_is_taken_as_it_is(model: Path, tmp_path: Path) -> None:
    (model / VIDEO_SETTINGS).write_text("{}")
    assert find(model, tmp_path / "state") == model
    assert not (tmp_path / "state").exists()


def test_a_missing_file_for_videos_is_completed_beside_the_folder_and_not_in_it(model: Path, tmp_path: Path) -> None:
    before = sorted(model.iterdir())
    found = find(model, tmp_path / "state")
    assert sorted(model.iterdir()) == before
    assert found.is_relative_to(tmp_path / "state")
    assert {file.name for file in found.iterdir()} == {file.name for file in before} | {VIDEO_SETTINGS}
    assert (found / "model.safetensors").resolve() == model / "model.safetensors"
    settings = json.loads((found / VIDEO_SETTINGS).read_text())
    assert settings["size"] == {"shortest_edge": 128 * 784, "longest_edge": 768 * 784}


@pytest.mark.parametrize("config", ['{"model_type": "qwen3_vl"}', '{"model_type": "internvl"}', "{}", "[]", "{"])
def test_a_model_of_another_kind_is_left_as_it_is(model: Path, tmp_path: Path, config: str) -> None:
    (model / "config.json").write_text(config)
    assert find(model, tmp_path / "state") == model


def test_completing_again_follows_what_has_changed(model: Path, tmp_path: Path) -> None:
    first = find(model, tmp_path / "state")
    (model / "model.safetensors").unlink()
    (model / "model-00001-of-00001.safetensors").write_bytes(b"new")
    second = find(model, tmp_path / "state")
    assert first != second
    assert not (second / "model.safetensors").is_symlink()
    assert (second / "model-00001-of-00001.safetensors").read_bytes() == b"new"


def test_completing_again_finds_what_is_there(model: Path, tmp_path: Path) -> None:
    first = find(model, tmp_path / "state")
    assert find(model, tmp_path / "state") == first
    assert list((tmp_path / "state" / "models").iterdir()) == [first]


def test_two_models_are_completed_apart(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in model.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    assert find(model, tmp_path / "state") != find(other, tmp_path / "state")


def test_settings_for_videos_are_those_for_pictures_with_the_budget_of_a_frame() -> None:
    made = video_settings(PICTURES, "Qwen2_5_VLProcessor")
    assert {name: made[name] for name in ("patch_size", "temporal_patch_size", "merge_size", "image_mean")} == {
        name: PICTURES[name] for name in ("patch_size", "temporal_patch_size", "merge_size", "image_mean")
    }
    assert made["video_processor_type"] == "Qwen2VLVideoProcessor"
    assert made["processor_class"] == "Qwen2_5_VLProcessor"
    assert "max_pixels" not in made


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere"])
def test_a_folder_that_is_not_there_is_told_and_nothing_is_downloaded(name: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError) as caught:
        find(name, tmp_path)
    assert caught.value.message == f"There is no folder {name}."
    assert "--model" in caught.value.hint


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"holds no config\.json"):
        find(tmp_path, tmp_path / "state")


# ---- Names


def test_names_are_the_operators_else_the_models_own(tmp_path: Path) -> None:
    (tmp_path / "AIN").mkdir()
    assert served_names("demo", ["a", "b"]) == ["a", "b"]
    assert served_names("demo", []) == [SERVED_NAME]
    assert served_names(f"{tmp_path}/AIN/", []) == ["AIN"]
    assert served_names("MBZUAI/AIN", []) == ["MBZUAI/AIN"]


# ---- The hub


def ask_the_hub(environment: dict[str, str], home: Path) -> list[str]:
    """Message and hint of a failed download. In a process of its own: the hub's client reads its settings at import."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from server.engine.checkpoint import find_checkpoint\n"
        "from server.engine.protocol import StartupError\n"
        "try:\n"
        "    find_checkpoint('MBZUAI/AIN', None, Path(sys.argv[1]), lambda _: None)\n"
        "except StartupError as error:\n"
        "    print(error.message)\n"
        "    print(error.hint)\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    answer = subprocess.run(
        [sys.executable, "-c", code, str(home)],
        env=kept | {"HF_HOME": str(home), "NO_PROXY": "*", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return answer.stdout.splitlines()


def test_a_machine_without_a_network_is_told_what_to_do(tmp_path: Path) -> None:
    message, hint = ask_the_hub({"HF_HUB_OFFLINE": "1"}, tmp_path)
    assert message.startswith("MBZUAI/AIN could not be downloaded")
    assert "Check the network, or download it elsewhere and give --model the folder." in hint


@pytest.fixture
def empty_hub() -> Iterator[str]:
    """A hub that knows no model, on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815  http.server names it so

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_that_the_hub_does_not_know_is_told(tmp_path: Path, empty_hub: str) -> None:
    message, hint = ask_the_hub({"HF_ENDPOINT": empty_hub}, tmp_path)
    assert message == "The hub has no model MBZUAI/AIN that you may read."
    assert "HF_TOKEN" in hint
