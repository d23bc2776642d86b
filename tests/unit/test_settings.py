"""Settings: one table, three sources, and errors that speak the language of the source that is at fault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from server.admission import keys
from server.media.fetching.addresses import AllowList
from server.media.setup import fetch_limits
from server.settings import (
    MIN_KEY_LENGTH,
    SECRET_NAME,
    SettingRow,
    Settings,
    SettingsError,
    describe,
    help_text,
    is_loopback,
    load_settings,
)
from server.settings.table import Group

KEY = "a-key-of-enough-characters"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("AIN_"):
            monkeypatch.delenv(name)


def problems(*argv: str) -> list[str]:
    """The lines of the error that these flags lead to."""
    with pytest.raises(SettingsError) as caught:
        load_settings(argv)
    return str(caught.value).splitlines()


def write(folder: Path, text: str) -> str:
    path = folder / "ain.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


# ---- The table


@pytest.mark.parametrize("row", describe(), ids=lambda row: row.name)
def test_every_setting_is_described_in_a_sentence_and_has_its_twins(row: SettingRow) -> None:
    assert len(row.description.split()) >= 4
    assert row.description.endswith(".")
    assert row.env == "AIN_" + row.name.upper()
    assert row.flag.startswith("--")
    assert row.allowed
    assert row.default


def test_every_setting_stands_in_the_help_with_its_variable_and_default() -> None:
    words = " ".join(help_text(80).split())
    for row in describe():
        assert f"{row.flag} " in words
        assert f"[{row.env}; default: {row.default}]" in words
        assert row.description in words


@pytest.mark.parametrize("width", [40, 80, 120, 300])
def test_help_fits_the_terminal(width: int) -> None:
    longest = max(map(len, help_text(width).splitlines()))
    assert longest <= max(width, 80)


def test_every_number_is_bounded() -> None:
    for row in describe():
        if "number" in row.allowed:
            assert " to " in row.allowed or "at most" in row.allowed, row


def test_groups_are_not_scattered() -> None:
    groups = [row.group for row in describe()]
    assert groups == sorted(groups, key=list(dict.fromkeys(groups)).index)


def test_media_have_groups_of_their_own() -> None:
    groups = list(dict.fromkeys(row.group for row in describe()))
    assert groups[4:] == [
        "Overload",
        "Limits",
        "Pictures",
        "Clips and documents",
        "Fetching",
        "Decoding",
        "Start-up and logs",
    ]
    assert groups == list(get_args(Group))


def test_every_kind_of_media_is_limited_by_default_and_no_file_of_this_machine_is_open() -> None:
    settings = Settings()
    assert (settings.max_pictures, settings.max_clips, settings.max_pages) == (16, 4, 16)
    assert (settings.max_picture_mib, settings.max_clip_mib, settings.max_document_mib) == (20, 48, 32)
    assert (settings.max_clip_seconds, settings.max_clip_frames, settings.max_page_dpi) == (600, 768, 300)
    assert (settings.decode_timeout_s, settings.decode_memory_mib, settings.max_aspect_ratio) == (20, 2048, 200)
    assert (settings.fetch_ports, settings.fetch_concurrency) == ([80, 443], 64)
    assert (settings.media_folders, settings.fetch_allowed_hosts, settings.fetch_allowed_networks) == ([], [], [])
    assert (settings.media_cache_mib, settings.fetch_cache_mib) == (512, 64)
    left_to_the_server = (settings.max_pixels_ceiling, settings.decode_workers, settings.media_memory_mib)
    assert left_to_the_server == (None, None, None)
    assert settings.scaled_decoding


def test_the_house_looks_after_itself_by_default() -> None:
    settings = Settings()
    assert (settings.engine_restarts, settings.engine_silence_s, settings.engine_step_s) == (5, 10, None)
    assert (settings.max_requests, settings.max_requests_per_key, settings.max_running) == (256, None, None)
    assert (settings.max_prefill_tokens, settings.ttft_target_s) == (131_072, None)
    assert (settings.queue_timeout_s, settings.request_timeout_s) == (30, 3600)
    assert (settings.stalled_timeout_s, settings.ping_s) == (60, 15)


def test_what_keeps_the_engine_up_and_the_house_from_overload_can_be_set() -> None:
    words = {
        "--engine-restarts": "0",
        "--engine-silence-s": "2.5",
        "--engine-step-s": "60",
        "--max-requests-per-key": "4",
        "--max-running": "8",
        "--max-prefill-tokens": "1000",
        "--ttft-target-s": "0.5",
        "--queue-timeout-s": "0",
        "--request-timeout-s": "90",
        "--stalled-timeout-s": "0.5",
        "--ping-s": "3",
    }
    settings = load_settings([word for pair in words.items() for word in pair])
    for flag, value in words.items():
        assert getattr(settings, flag[2:].replace("-", "_")) == float(value)


@pytest.mark.parametrize(
    ("flag", "value", "wanted"),
    [
        ("--engine-restarts", "-1", "a whole number from 0 to 1000"),
        ("--engine-silence-s", "0.5", "a number from 1 to 3600"),
        ("--engine-step-s", "0", "a number from 1 to 86400"),
        ("--max-requests-per-key", "0", "a whole number from 1 to 100000"),
        ("--max-running", "0", "a whole number from 1 to 100000"),
        ("--max-prefill-tokens", "0", "a whole number from 1 to 1000000000"),
        ("--ttft-target-s", "0", "a number above 0 and at most 3600"),
        ("--queue-timeout-s", "-1", "a number from 0 to 3600"),
        ("--queue-timeout-s", "nan", "a number from 0 to 3600"),
        ("--request-timeout-s", "0", "a number above 0 and at most 86400"),
        ("--stalled-timeout-s", "0", "a number above 0 and at most 3600"),
        ("--ping-s", "0", "a number above 0 and at most 3600"),
    ],
)
def test_what_would_let_nobody_in_or_never_end_is_refused(flag: str, value: str, wanted: str) -> None:
    assert problems(flag, value) == [f"{flag}: {value!r} must be {wanted}"]


def test_one_file_of_each_kind_fits_among_all_files_of_a_request() -> None:
    settings = Settings()
    assert max(settings.max_picture_mib, settings.max_clip_mib, settings.max_document_mib) <= settings.max_body_mib


def test_the_bundled_model_is_served_on_this_machine_by_default() -> None:
    settings = load_settings([])
    assert (settings.model, settings.host, settings.port) == ("demo", "127.0.0.1", 8000)
    assert settings.on_loopback


def test_the_shortest_key_is_the_same_here_and_where_keys_are_checked() -> None:
    assert MIN_KEY_LENGTH == keys.MIN_KEY_LENGTH


def test_loading_is_light() -> None:
    heavy = "{'torch', 'vllm', 'fastapi', 'transformers', 'rich', 'numpy', 'PIL'}"
    code = (
        f"import sys; from server.settings import load_settings; load_settings([]); print({heavy} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


# ---- Three sources


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIN_CONFIG", write(tmp_path, "port = 1\nmax_requests = 1\nmax_choices = 1\n"))
    monkeypatch.setenv("AIN_PORT", "2")
    monkeypatch.setenv("AIN_MAX_REQUESTS", "2")
    settings = load_settings(["--port", "3"])
    assert (settings.port, settings.max_requests, settings.max_choices) == (3, 2, 1)


def test_the_flag_names_the_file_before_the_variable_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIN_CONFIG", str(tmp_path / "there-is-none.toml"))
    assert load_settings(["--config", write(tmp_path, "port = 5")]).port == 5


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIN_PORT", "")
    assert load_settings([]).port == 8000


def test_arguments_alone_make_settings_without_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIN_PORT", "9")
    assert Settings().port == 8000


@pytest.mark.parametrize(("flags", "expected"), [([], True), (["--no-warmup"], False), (["--warmup"], True)])
def test_switches_can_be_turned_on_and_off(flags: list[str], expected: object) -> None:
    assert load_settings(flags).warmup is expected


def test_a_switch_may_be_left_to_the_server() -> None:
    assert load_settings([]).enforce_eager is None
    assert load_settings(["--no-enforce-eager"]).enforce_eager is False


def test_lists_are_repeated_flags_or_commas_or_toml_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(["--served-model-name", "a,b", "--served-model-name", "c"]).served_model_name == list("abc")
    monkeypatch.setenv("AIN_SERVED_MODEL_NAME", "a, b ,")
    assert load_settings([]).served_model_name == ["a", "b"]
    config = write(tmp_path, 'cors_origins = ["https://example.org"]')
    assert load_settings(["--config", config]).cors_origins == ["https://example.org"]


def test_ports_are_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(["--fetch-ports", "80,8080", "--fetch-ports", "9000"]).fetch_ports == [80, 8080, 9000]
    assert load_settings(["--config", write(tmp_path, "fetch_ports = [81]")]).fetch_ports == [81]
    monkeypatch.setenv("AIN_FETCH_PORTS", "82, 83")
    assert load_settings([]).fetch_ports == [82, 83]
    [row] = [row for row in describe() if row.name == "fetch_ports"]
    assert (row.flag, row.default) == ("--fetch-ports PORT", "80,443")


@pytest.mark.parametrize("value", ["80,x", "0", "65536", ",", "1.5"])
def test_what_is_no_port_is_told_what_a_port_is(value: str) -> None:
    wanted = "a list of port numbers from 1 to 65535, separated by commas"
    assert problems("--fetch-ports", value) == [f"--fetch-ports: {value!r} must be {wanted}"]


@pytest.mark.parametrize("name", ["min_pixels", "max_pixels"])
def test_no_default_is_above_the_ceiling(name: str) -> None:
    flag = "--" + name.replace("_", "-")
    assert problems(flag, "4000", "--max-pixels-ceiling", "3000") == [
        f"{flag}: 4000 is more than max_pixels_ceiling, 3000"
    ]
    assert load_settings([flag, "3000", "--max-pixels-ceiling", "3000"]).max_pixels_ceiling == 3000


def test_networks_are_those_that_the_fetcher_reads() -> None:
    networks = ["10.1.0.0/16", "10.1.2.3/16", "192.168.1.4", "fd00::/8"]
    assert load_settings(["--fetch-allowed-networks", ",".join(networks)]).fetch_allowed_networks == networks
    AllowList.parse([], networks)
    [line] = problems("--fetch-allowed-networks", "10.1/x")
    assert line == "--fetch-allowed-networks: 10.1/x is not an address or a network such as 10.1.0.0/16"


@pytest.mark.parametrize("proxy", ["http://proxy:3128", "https://user:p%40ss@proxy.example.org/", "http://[::1]:3128"])
def test_a_proxy_is_a_url_whose_password_is_shown_to_nobody(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIN_FETCH_PROXY", proxy)
    settings = load_settings([])
    assert settings.fetch_proxy is not None
    assert settings.fetch_proxy.get_secret_value() == proxy
    assert proxy not in str(settings)
    assert proxy not in repr(fetch_limits(settings))
    assert SECRET_NAME.search("AIN_FETCH_PROXY")
    assert not SECRET_NAME.search("HTTPS_PROXY")


@pytest.mark.parametrize("proxy", ["proxy:3128", "socks5://proxy", "http://", "http://a b", "http://geheim@proxy/x"])
def test_what_is_no_proxy_is_refused_unshown(proxy: str) -> None:
    [line] = problems("--fetch-proxy", proxy)
    assert "http://proxy:3128" in line
    assert "geheim" not in line


def test_who_fetches_has_a_name_for_a_header(tmp_path: Path) -> None:
    assert load_settings(["--fetch-user-agent", "archive/1.0 (ops@example.org)"]).fetch_user_agent.startswith("archive")
    for wrong in ("", "a\r\nb", "\u0645", " a", "x" * 201):
        assert problems("--fetch-user-agent", wrong)
    assert "there is no file" in problems("--fetch-ca-file", str(tmp_path / "none.pem"))[0]


def test_folders_for_media_are_there_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings = load_settings(["--media-folders", f"{tmp_path}/a,~/b", "--media-folders", "a"])
    assert settings.media_folders == [tmp_path / "a", tmp_path / "b", tmp_path / "a"]
    config = write(tmp_path, 'media_folders = ["a"]')
    assert load_settings(["--config", config]).media_folders == [tmp_path / "a"]


def test_the_root_is_no_folder_for_media_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    for root in ("/", "/tmp/..", str(tmp_path / "link")):
        [line] = problems("--media-folders", root)
        assert line.startswith("--media-folders: would open every file of this machine")


def test_a_home_folder_is_understood_in_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = load_settings(["--model", "~/AIN", "--log-file", "~/log"])
    assert (settings.model, settings.log_file) == (str(tmp_path / "AIN"), tmp_path / "log")


# ---- Errors name the source's own spelling


def test_a_bad_flag_is_named_as_a_flag() -> None:
    assert problems("--max-requests", "many") == ["--max-requests: 'many' must be a whole number from 1 to 100000"]


def test_a_bad_variable_is_named_as_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIN_MAX_REQUESTS", "0")
    assert problems() == ["AIN_MAX_REQUESTS: '0' must be a whole number from 1 to 100000"]


def test_a_bad_key_of_the_file_is_named_with_its_file(tmp_path: Path) -> None:
    config = write(tmp_path, 'device = "tpu"')
    assert problems("--config", config) == [f"{config}: device: 'tpu' must be one of auto, cpu, gpu"]


def test_a_bad_value_that_a_flag_overrides_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIN_PORT", "none")
    assert load_settings(["--port", "1"]).port == 1


def test_all_problems_come_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIN_PRT", "1")
    config = write(tmp_path, "max-choices = 3\nkeep_alive_s = 0\n")
    assert problems("--prt=1", "--port", "70000", "--config", config) == [
        "--prt: unknown flag; did you mean --port?",
        "AIN_PRT: unknown variable; did you mean AIN_PORT?",
        f"{config}: max-choices: unknown key; did you mean max_choices?",
        "--port: '70000' must be a whole number from 0 to 65535",
        f"{config}: keep_alive_s: 0 must be a whole number from 1 to 86400",
    ]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--zebra"], "--zebra: unknown flag; ain-serve --help lists all"),
        (["--max_requests", "3"], "--max_requests: unknown flag; did you mean --max-requests?"),
        (["--versoin"], "--versoin: unknown flag; did you mean --version?"),
        (["--mode", "x"], "--mode: unknown flag; did you mean --model?"),
        (["MBZUAI/AIN"], "MBZUAI/AIN: not a flag; to serve this model write --model MBZUAI/AIN"),
        (["--port"], "--port: expected one argument"),
        (["--gpu-memory-utilization", "0"], "--gpu-memory-utilization: '0' must be a number above 0 and at most 1"),
        (["--body-timeout-s", "inf"], "--body-timeout-s: 'inf' must be a number above 0 and at most 3600"),
        (["--log-level", "loud"], "--log-level: 'loud' must be one of debug, info, warning, error"),
        (["--root-path", "ain"], "--root-path: must begin with /"),
        (["--api-keys-file", "/none"], "--api-keys-file: there is no file /none"),
        (["--min-pixels", "4000", "--max-pixels", "3000"], "--min-pixels: 4000 is more than max_pixels, 3000"),
        (["--max-aspect-ratio", "201"], "--max-aspect-ratio: '201' must be a whole number from 2 to 200"),
        (["--media-folders", "/none"], "--media-folders: there is no folder /none"),
        (["--media-folders", "/etc/passwd"], "--media-folders: there is no folder /etc/passwd"),
        (["--decode-threads", "2"], "--decode-threads: unknown flag; did you mean --decode-workers?"),
        (["--node-rank", "2", "--nnodes", "2"], "--node-rank: 2 must be less than nnodes, 2"),
    ],
)  # fmt: skip
def test_wrong_flags_are_explained(argv: list[str], expected: object) -> None:
    assert problems(*argv) == [expected]


@pytest.mark.parametrize("text", ["port = ", b"\xff\xfe", "port = 1\nport = 2"])
def test_a_file_that_is_not_toml(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "ain.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    [line] = problems("--config", str(path))
    assert line.startswith(f"--config: {path} is not a TOML file: ")


def test_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIN_CONFIG", "/none.toml")
    assert problems() == ["AIN_CONFIG: cannot read /none.toml: No such file or directory"]


def test_a_file_cannot_name_a_further_file(tmp_path: Path) -> None:
    [line] = problems("--config", write(tmp_path, 'config = "other.toml"'))
    assert "config: unknown key" in line


def test_variables_that_kubernetes_makes_for_services_are_no_typos(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIN_SERVICE_HOST", "AIN_SERVICE_PORT_HTTP", "AIN_PORT_8000_TCP_ADDR", "AIN_SERVER_SERVICE_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("AIN_SERVER_PORT", "tcp://10.0.0.1:80")
    assert load_settings([]).port == 8000
    monkeypatch.setenv("AIN_PORT", "tcp://10.0.0.1:80")
    assert "enableServiceLinks: false" in problems()[0]


# ---- Arguments for the engine


def test_engine_arguments_are_json_or_plain_text() -> None:
    pairs = [
        "enable-prefix-caching=false",
        "seed=7",
        "load_format=dummy",
        'limit={"image": 2}',
        "eager=True",
        "no=None",
    ]
    settings = load_settings([word for pair in pairs for word in ("--engine-arg", pair)])
    assert settings.engine_args == {
        "enable_prefix_caching": False,
        "seed": 7,
        "load_format": "dummy",
        "limit": {"image": 2},
        "eager": True,
        "no": None,
    }


def test_engine_arguments_are_merged_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path, "[engine_args]\nseed = 1\nblock-size = 1\nswap = 1")
    monkeypatch.setenv("AIN_ENGINE_ARGS", '{"seed": 2, "block_size": 2}')
    settings = load_settings(["--engine-arg", "seed=3", "--config", config])
    assert settings.engine_args == {"seed": 3, "block_size": 2, "swap": 1}


def test_an_engine_argument_with_a_setting_of_its_own_is_sent_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path, "[engine_args]\nmax_model_len = 1")
    monkeypatch.setenv("AIN_ENGINE_ARGS", '{"dtype": "half"}')
    assert problems("--engine-arg", "max-num-seqs=4", "--config", config) == [
        "--engine-arg: max_num_seqs is a setting of its own: --max-num-seqs",
        "AIN_ENGINE_ARGS: dtype is a setting of its own: AIN_DTYPE",
        f"{config}: engine_args: max_model_len is a setting of its own: {config}: max_model_len",
    ]
    with pytest.raises(ValidationError, match="max_model_len is a setting of its own: --max-model-len"):
        Settings(engine_args={"max-model-len": 1})


def test_engine_arguments_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems("--engine-arg", "enable-lora") == ["--engine-arg enable-lora: write it as NAME=VALUE"]
    monkeypatch.setenv("AIN_ENGINE_ARGS", "{seed: 1}")
    assert problems()[0].startswith("AIN_ENGINE_ARGS: is not a JSON object: ")
    monkeypatch.setenv("AIN_ENGINE_ARGS", "[1]")
    assert problems() == ["AIN_ENGINE_ARGS: '[1]' must be a JSON object"]


# ---- Keys and public addresses


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]"])
def test_loopback_addresses(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", "127.0.0.1.example.org", "128.0.0.1"])
def test_other_addresses_need_keys_or_a_clear_word(host: str) -> None:
    assert not is_loopback(host)
    lines = problems("--host", host)
    assert lines[0] == f"--host: other machines can reach {host}, and no API key is set. Three ways out:"
    assert [line[:4] for line in lines[1:]] == ["  - "] * 3
    for way, flag in zip(lines[1:], ("--host 127.0.0.1", "--api-keys-file", "--allow-unauthenticated"), strict=True):
        assert flag in way


def test_a_public_address_in_the_environment_is_named_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIN_HOST", "0.0.0.0")
    assert problems()[0].startswith("AIN_HOST: ")


def test_each_way_out_leads_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(KEY)
    assert load_settings(["--host", "0.0.0.0", "--allow-unauthenticated"]).allow_unauthenticated
    assert load_settings(["--host", "0.0.0.0", "--api-keys-file", str(file)]).api_keys_file == file
    monkeypatch.setenv("AIN_API_KEYS", f"{KEY}, desk={KEY}")
    assert [key.get_secret_value() for key in load_settings(["--host", "::"]).api_keys] == [KEY, f"desk={KEY}"]


def test_keys_and_no_keys_at_once_is_a_contradiction() -> None:
    [line] = problems("--api-keys", KEY, "--allow-unauthenticated")
    assert line == "--allow-unauthenticated: contradicts the API keys that are set: keep one of the two"


def test_keys_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIN_API_KEYS", f"{KEY},short-secret")
    text = "\n".join(problems())
    assert text.startswith("AIN_API_KEYS: a key needs at least 22 characters")
    assert KEY not in text
    assert "short-secret" not in text
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"api_keys": ["short-secret"]})
    assert "short-secret" not in str(caught.value)
    monkeypatch.setenv("AIN_API_KEYS", KEY)
    settings = load_settings([])
    assert KEY not in f"{settings!r} {settings} {settings.model_dump_json()} {help_text()}"


# ---- The log's place


def test_the_engine_logs_to_the_users_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    expected = tmp_path / ".local/state/ain-server/engine-8001.log"
    assert Settings().log_path(8001) == expected
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert Settings().log_path(8001) == expected
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert Settings().log_path(8001) == tmp_path / "state/ain-server/engine-8001.log"
    assert Settings(log_file=tmp_path / "x").log_path(8001) == tmp_path / "x"
