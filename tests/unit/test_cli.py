"""The command: what it answers at once, what it hands on, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from server import __version__
from server.cli import main
from server.settings import Settings, SettingsError, load_settings

KEY = "a-key-of-enough-characters"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("AIN_"):
            monkeypatch.delenv(name)


Launch = Callable[[Callable[[Settings], int]], None]


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Puts a function in the place of the one that serves."""

    def put(serve: Callable[[Settings], int]) -> None:
        module = types.ModuleType("server.launch")
        module.serve = serve  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "server.launch", module)

    return put


def test_it_serves_with_the_settings_and_returns_what_serving_returned(launch: Launch) -> None:
    seen = []

    def serve(settings: Settings) -> int:
        seen.append(settings.port)
        return 7

    launch(serve)
    assert main(["--port", "0"]) == 7
    assert seen == [0]


def test_wrong_settings_end_it_with_2_and_a_word_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--prot", "1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "ain-serve cannot start:",
        "  --prot: unknown flag; did you mean --port?",
        "All settings: ain-serve --help",
    ]


def test_settings_that_only_serving_finds_wrong_end_it_in_the_same_way(
    launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(settings: Settings) -> int:
        raise SettingsError("the keys file holds no key")

    launch(serve)
    assert main([]) == 2
    assert "the keys file holds no key" in capsys.readouterr().err


def test_ctrl_c_ends_it_with_130_and_no_traceback(launch: Launch, capsys: pytest.CaptureFixture[str]) -> None:
    def serve(settings: Settings) -> int:
        raise KeyboardInterrupt

    launch(serve)
    assert main([]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    assert "AIN_MAX_REQUESTS" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ain-serve {__version__}\n"


def test_a_new_key_comes_with_its_hash_and_opens_a_server_that_knows_only_the_hash(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from server.admission.keys import KeyRing

    assert main(["--new-key"]) == 0
    key, digest = capsys.readouterr().out.splitlines()
    assert key.startswith("ain-")
    assert digest.startswith("sha256:")
    assert KeyRing([f"desk = {digest}"]).authenticate(f"Bearer {key}").name == "desk"


def test_printed_settings_lead_to_the_same_settings_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    flags = ["--model", 'a "model" \\ نموذج', "--cors-origins", "https://a.example,https://b.example", "--port", "0"]
    flags += ["--engine-arg", 'limit={"image": {"count": 2}, "rate": [0.5, true]}', "--engine-arg", "seed=null"]
    assert main([*flags, "--body-timeout-s", "1.5", "--log-file", "/tmp/x y.log", "--print-settings"]) == 0
    file = tmp_path / "printed.toml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    again = load_settings(["--config", str(file), "--engine-arg", "seed=null"])
    before = load_settings([*flags, "--body-timeout-s", "1.5", "--log-file", "/tmp/x y.log"])
    assert again.model_dump(exclude={"config"}) == before.model_dump(exclude={"config"})


def test_printed_settings_show_no_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--api-keys", KEY, "--print-settings"]) == 0
    out = capsys.readouterr().out
    assert KEY not in out
    assert "# api_keys: 1 set, not shown" in out
    assert "api_keys" not in tomllib.loads(out)


@pytest.mark.parametrize("name", ["hf_token", "api_key", "S3_SECRET_ACCESS_KEY", "ssl_password"])
def test_printed_settings_show_no_secrets_of_the_engine(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["--engine-arg", f"{name}=hidden-words", "--engine-arg", "seed=5", "--print-settings"]) == 0
    out = capsys.readouterr().out
    assert "hidden-words" not in out
    assert f'# "{name}": set, not shown' in out
    assert tomllib.loads(out)["engine_args"] == {"seed": 5}


def test_printing_wrong_settings_is_an_error_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-settings", "--port", "x"]) == 2


def test_the_module_is_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "server", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"ain-serve {__version__}\n"


def test_the_command_loads_nothing_slow_before_it_is_asked_to_serve() -> None:
    code = "import sys, server.cli; print({'pydantic', 'rich', 'vllm', 'fastapi'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
