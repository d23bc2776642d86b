"""Every setting once: its type, default, bounds and description.

A setting can be given in three places. Flags win over environment variables, those over the TOML file, that over the
default:

    ain-serve --max-requests 32        AIN_MAX_REQUESTS=32        max_requests = 32

The command line, the help and the tests are all made from the fields of `Settings`. Anything that is not in that table
is an error, so a typo never passes for a setting.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

PROGRAM = "ain-serve"
ENV_PREFIX = "AIN_"
MIN_KEY_LENGTH = 22
"""128 bits need 22 characters in base64: what is shorter can be guessed."""

SECRET_NAME = re.compile(r"(^|_)(API)?KEYS?($|_)|(^|_)TOKEN($|_)|SECRET|PASSWORD|CREDENTIAL|FETCH_PROXY", re.IGNORECASE)
"""Names of variables and engine arguments whose values are shown to nobody, and passed on to nobody."""

Group = Literal[
    "Model",
    "Network",
    "Keys",
    "Engine",
    "Overload",
    "Limits",
    "Pictures",
    "Clips and documents",
    "Fetching",
    "Decoding",
    "Start-up and logs",
]

ACTIONS = {
    "--help": "Show this list and exit.",
    "--version": "Show the version and exit.",
    "--print-settings": "Show the settings in effect as a TOML file, with keys left out, and exit.",
    "--new-key": "Make an API key, show it with the line for a keys file that holds only its hash, and exit.",
}
"""Flags that are not settings: each does one thing and exits. `server.cli` does them; here they are known by name."""


class SettingsError(Exception):
    """What is wrong with the settings, for a person to read: one problem a line, in the spelling of its source."""


# ---- The table --------------------------------------------------------------------------------------


def _setting(
    group: Group, default: object, description: str, *, unset: str = "none", metavar: str = "", **bounds: Any
) -> Any:
    """A row of the table. `unset` says in the help what an empty default means."""
    extra: dict[str, Any] = {"group": group, "unset": unset, "metavar": metavar}
    return Field(default=default, description=description, json_schema_extra=extra, **bounds)


def _split_commas(value: object) -> object:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


def parse_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"is not a JSON object: {error}") from None


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Texts = Annotated[list[str], NoDecode, BeforeValidator(_split_commas)]
ApiKey = Annotated[SecretStr, Field(min_length=MIN_KEY_LENGTH)]
Secrets = Annotated[list[ApiKey], NoDecode, BeforeValidator(_split_commas)]
JsonObject = Annotated[dict[str, Any], NoDecode, BeforeValidator(parse_json)]
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
Folders = Annotated[list[UserPath], NoDecode, BeforeValidator(_split_commas)]
Port = Annotated[int, Field(ge=1, le=65535)]
Ports = Annotated[list[Port], NoDecode, Field(min_length=1), BeforeValidator(_split_commas)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]


class Settings(BaseSettings):
    """All settings. Building one from arguments reads neither the environment nor a file: `load_settings` does."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,  # compose files pass variables that nobody has set as empty strings
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # the input may be a key
        allow_inf_nan=False,
    )

    # ---- Model
    model: str = _setting(
        "Model",
        "demo",
        "The model to serve: demo (a small one that comes with the server), a hub id such as MBZUAI/AIN, or a folder.",
        min_length=1,
    )
    revision: str | None = _setting(
        "Model", None, "The branch, tag or commit of a model from the hub.", unset="the hub's main branch"
    )
    served_model_name: Texts = _setting(
        "Model",
        [],
        "The names under which clients may ask for the model; the first is the one that replies carry.",
        unset="derived from the model",
        metavar="NAME",
    )
    engine: Literal["vllm", "scripted"] = _setting(
        "Model",
        "vllm",
        "What runs the model. scripted runs none: it answers from a script, for tests and drills of clients and "
        "balancers only.",
    )

    accept_any_model: bool = _setting(
        "Model", False, "Answer for every name of a model that a client asks for, whatever the model is called."
    )
    model_sampling: Literal["yields", "keeps"] = _setting(
        "Model",
        "yields",
        "What becomes of the model's own top_k, top_p, min_p and temperature when a request names temperature or "
        "top_p: they yield to what is asked for, or each keeps until it is named itself, as in vLLM's server.",
    )

    unknown_parameters: Literal["tell", "refuse"] = _setting(
        "Model",
        "tell",
        "What becomes of a request with parameters that have no effect: it is answered, and the header "
        "x-ignored-parameters names them, or it is refused. What would change the answer is refused in any case.",
    )

    # ---- Network
    host: str = _setting(
        "Network",
        "127.0.0.1",
        "The address to listen on. One that other machines can reach asks for API keys.",
        metavar="ADDRESS",
        min_length=1,
    )
    port: int = _setting("Network", 8000, "The TCP port to listen on; 0 takes any free one.", ge=0, le=65535)
    root_path: str = _setting(
        "Network", "", "The path under which a reverse proxy publishes the server, such as /ain.", metavar="PATH"
    )
    cors_origins: Texts = _setting(
        "Network",
        [],
        "The origins whose web pages may call the API from a browser, such as https://example.org; * allows all.",
        metavar="ORIGIN",
    )
    keep_alive_s: int = _setting(
        "Network",
        130,
        "How long an idle connection stays open. Above the idle times of common connection pools, so that a "
        "client never sends into a connection that is just closing.",
        ge=1,
        le=86_400,
    )
    max_connections: int | None = _setting(
        "Network",
        None,
        "How many connections may be open at once. With more, those without a whole head are closed, first who has "
        "waited longest.",
        unset="three quarters of the process's descriptors",
        ge=8,
        le=1_000_000,
    )
    max_connections_per_address: int = _setting(
        "Network",
        0,
        "How many of them may come from one address; 0 sets no such limit, which is right behind a proxy.",
        ge=0,
        le=1_000_000,
    )

    metrics_port: int | None = _setting(
        "Network",
        None,
        "A port of its own for /metrics and health, which then asks for no key but --metrics-key; for networks in "
        "which only the monitor can reach it.",
        unset="/metrics is at the API's port, and takes its keys",
        ge=1,
        le=65535,
    )
    metrics_host: str | None = _setting(
        "Network", None, "The address of that port.", unset="the API's", metavar="ADDRESS", min_length=1
    )

    # ---- Keys
    api_keys: Secrets = _setting(
        "Keys",
        [],
        f"The API keys to accept, as KEY or NAME=KEY, each of {MIN_KEY_LENGTH} characters or more. Other users of "
        "the machine can read flags: prefer the variable or a file.",
        metavar="KEY",
    )
    api_keys_file: UserPath | None = _setting(
        "Keys", None, "A file with one API key a line, as KEY, NAME = KEY or NAME = sha256:HASH.", metavar="FILE"
    )
    metrics_key: ApiKey | None = _setting(
        "Keys", None, "The key that opens /metrics, instead of the API's keys, which then do not.", metavar="KEY"
    )
    docs: Literal["keys", "open", "off"] = _setting(
        "Keys",
        "keys",
        "Who may read the API's description at /docs: who has a key, where there are keys; anybody; nobody.",
    )
    allow_unauthenticated: bool = _setting(
        "Keys", False, "Let anyone in without a key, even on an address that other machines can reach."
    )

    # ---- Engine
    device: Literal["auto", "cpu", "gpu"] = _setting(
        "Engine", "auto", "Where the model runs; auto takes the GPU if the machine has one."
    )
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = _setting(
        "Engine", "auto", "The number format of the weights; auto takes the model's own."
    )
    quantization: str | None = _setting(
        "Engine",
        None,
        "How weights are made smaller, such as fp8.",
        unset="fp8 only where the model does not fit otherwise",
        metavar="METHOD",
    )
    max_model_len: int | None = _setting(
        "Engine",
        None,
        "The longest context in tokens, prompt and answer together.",
        unset="chosen by memory",
        ge=16,
        le=10_000_000,
    )
    max_num_seqs: int | None = _setting(
        "Engine", None, "How many sequences the engine works on at once.", unset="chosen by memory", ge=1, le=65_536
    )
    max_num_batched_tokens: int | None = _setting(
        "Engine", None, "How many tokens the engine takes in one step.", unset="chosen by memory", ge=16, le=10_000_000
    )
    gpu_memory_utilization: float | None = _setting(
        "Engine", None, "The share of the GPU's memory that the engine may fill.", unset="chosen by memory", gt=0, le=1
    )
    kv_cache_gib: int | None = _setting(
        "Engine",
        None,
        "Memory in GiB for the CPU engine's KV cache.",
        unset="2",
        metavar="GIB",
        ge=1,
        le=65_536,
    )
    tensor_parallel_size: int = _setting("Engine", 1, "Over how many GPUs each layer is split.", ge=1, le=1024)
    pipeline_parallel_size: int = _setting(
        "Engine", 1, "Over how many groups of GPUs the layers are shared out.", ge=1, le=1024
    )
    nnodes: int = _setting("Engine", 1, "How many machines work together.", ge=1, le=1024)
    node_rank: int = _setting("Engine", 0, "Which of these machines this one is, counted from 0.", ge=0, le=1023)
    master_addr: str = _setting(
        "Engine", "127.0.0.1", "The address of machine 0, where the others meet it.", metavar="ADDRESS", min_length=1
    )
    master_port: int = _setting("Engine", 29501, "The port of machine 0, where the others meet it.", ge=1, le=65535)
    distributed_executor_backend: Literal["mp", "ray", "uni"] | None = _setting(
        "Engine",
        None,
        "What starts the engine's workers: processes, Ray, or nothing (one GPU).",
        unset="the engine decides",
    )
    enforce_eager: bool | None = _setting(
        "Engine",
        None,
        "Run without compiled graphs: a quicker start, slower answers on a GPU.",
        unset="on for the CPU, off for a GPU",
    )
    engine_restarts: int = _setting(
        "Engine",
        5,
        "How often within ten minutes an engine that died or hangs is started again in place; after that the server "
        "ends with status 1. With 0 it ends at once, for a balancer and a supervisor of processes to take over.",
        ge=0,
        le=1000,
    )
    engine_silence_s: float = _setting(
        "Engine",
        10.0,
        "After how long without an answer, and without using the processor, the engine is taken for hung.",
        ge=1,
        le=3600,
    )
    engine_step_s: float | None = _setting(
        "Engine",
        None,
        "After how long without an answer it is taken for hung although it is busy: longer than any step of the model "
        "takes.",
        unset="300, on a CPU 3600",
        ge=1,
        le=86_400,
    )
    engine_args: JsonObject = _setting(
        "Engine",
        {},
        "Any other argument of vLLM's engine, with a JSON value or plain text; repeatable. The variable takes a "
        "JSON object, the file a table [engine_args].",
        metavar="NAME=VALUE",
    )

    # ---- Limits
    max_requests: int = _setting(
        "Overload",
        256,
        "How many requests may be in the house at once, those that wait included; more are told to try again later.",
        ge=1,
        le=100_000,
    )
    max_requests_per_key: int | None = _setting(
        "Overload", None, "How many of these one key may have; it gets status 429 for more.", ge=1, le=100_000
    )
    max_running: int | None = _setting(
        "Overload",
        None,
        "How many answers may be at work at once, fetching and decoding included; more wait for their turn, which goes "
        "to the key that has the fewest at work.",
        unset="as many as the engine runs at once",
        ge=1,
        le=100_000,
    )
    max_prefill_tokens: int = _setting(
        "Overload",
        131_072,
        "How many prompt tokens may wait for their first token at once; requests with more together wait for their "
        "turn.",
        ge=1,
        le=1_000_000_000,
    )
    ttft_target_s: float | None = _setting(
        "Overload",
        None,
        "The time to first token that you want, in seconds: --max-prefill-tokens then is the most, and the limit "
        "in effect follows what is measured. No request waits for its turn longer than half of it.",
        unset="the limits above are fixed",
        gt=0,
        le=3600,
    )
    queue_timeout_s: float = _setting(
        "Overload",
        30.0,
        "How long a request may wait for its turn; one that would have to wait longer is told at once to try again "
        "later.",
        ge=0,
        le=3600,
    )
    request_timeout_s: float = _setting(
        "Overload",
        3600.0,
        "How long a request may take in all. Clients can ask for less, with the header X-Request-Timeout or the field "
        "timeout, in seconds.",
        gt=0,
        le=86_400,
    )
    stalled_timeout_s: float = _setting(
        "Overload",
        60.0,
        "How long a client may leave its reply unread before its connection is closed.",
        gt=0,
        le=3600,
    )
    ping_s: float = _setting(
        "Overload",
        15.0,
        "After how long a silence a stream carries a comment, so that no proxy takes it for dead.",
        gt=0,
        le=3600,
    )
    max_choices: int = _setting("Limits", 8, "The largest n, the answers that one request may ask for.", ge=1, le=128)
    max_body_mib: int = _setting(
        "Limits",
        64,
        "The largest request body in MiB, and the most that all pictures, clips and documents of a request may hold "
        "together, those that are fetched too.",
        metavar="MIB",
        ge=1,
        le=4096,
    )
    max_bodies_mib: int | None = _setting(
        "Limits",
        None,
        "Memory in MiB for all request bodies that have come or are coming, until their replies begin; more are told "
        "to try again.",
        unset="an eighth of the machine's memory",
        metavar="MIB",
        ge=1,
        le=16_777_216,
    )
    body_timeout_s: float = _setting(
        "Limits", 60.0, "How long a client may take to send its request body.", gt=0, le=3600
    )
    default_max_tokens: int | None = _setting(
        "Limits",
        None,
        "The longest answer in tokens for a request that sets no limit itself.",
        unset="what the context leaves",
        ge=1,
        le=10_000_000,
    )
    drain_timeout_s: float = _setting(
        "Limits",
        30.0,
        "How long requests under way may take to finish when the server is told to stop.",
        ge=0,
        le=86_400,
    )

    # ---- Pictures
    max_pictures: int = _setting("Pictures", 16, "How many pictures one request may hold.", ge=0, le=1000)
    max_picture_mib: int = _setting(
        "Pictures", 20, "The largest picture in MiB, as sent or downloaded.", metavar="MIB", ge=1, le=4096
    )
    max_picture_megapixels: int = _setting(
        "Pictures", 100, "The largest picture in millions of pixels, once decoded.", metavar="MEGAPIXELS", ge=1, le=1000
    )
    max_aspect_ratio: int = _setting(
        "Pictures",
        200,
        "How many times its short side the long side of a picture may be. The model family takes 200 at most.",
        ge=2,
        le=200,
    )
    min_pixels: int | None = _setting(
        "Pictures",
        None,
        "Smaller pictures are enlarged to this many pixels, unless a request asks otherwise.",
        unset="the model's",
        metavar="PIXELS",
        ge=784,
        le=100_000_000,
    )
    max_pixels: int | None = _setting(
        "Pictures",
        None,
        "Larger pictures are reduced to this many pixels, unless a request asks otherwise: fewer cost less and show "
        "less.",
        unset="the model's",
        metavar="PIXELS",
        ge=784,
        le=100_000_000,
    )
    max_pixels_ceiling: int | None = _setting(
        "Pictures",
        None,
        "The most pixels that a request may ask for in a picture, a page or a frame.",
        unset="max_pixels if that is set, else the model's",
        metavar="PIXELS",
        ge=784,
        le=100_000_000,
    )

    # ---- Clips and documents
    max_clips: int = _setting("Clips and documents", 4, "How many clips one request may hold.", ge=0, le=1000)
    max_clip_mib: int = _setting(
        "Clips and documents",
        48,
        "The largest clip in MiB, as sent or downloaded. In base64 it takes a third more of the request body.",
        metavar="MIB",
        ge=1,
        le=4096,
    )
    max_clip_seconds: float = _setting(
        "Clips and documents",
        600.0,
        "The longest clip that a request may hold.",
        metavar="SECONDS",
        gt=0,
        le=86_400,
    )
    max_clip_frames: int = _setting(
        "Clips and documents", 768, "How many frames of a clip a request may ask for.", ge=2, le=4096
    )
    max_pages: int = _setting(
        "Clips and documents", 16, "How many pages the documents of one request may have together.", ge=0, le=1000
    )
    max_document_mib: int = _setting(
        "Clips and documents", 32, "The largest document in MiB, as sent or downloaded.", metavar="MIB", ge=1, le=4096
    )
    max_page_dpi: int = _setting(
        "Clips and documents", 300, "The most dots an inch at which a page is drawn.", metavar="DPI", ge=18, le=2400
    )

    # ---- Fetching
    fetch_timeout_s: float = _setting(
        "Fetching", 10.0, "How long fetching a picture, clip or document from its address may take.", gt=0, le=3600
    )
    fetch_allowed_hosts: Texts = _setting(
        "Fetching",
        [],
        "Hosts, as NAME or NAME:PORT, from which files are fetched although they are not public, such as an image "
        "store of your own.",
        unset="public hosts only",
        metavar="HOST",
    )
    fetch_allowed_networks: Texts = _setting(
        "Fetching",
        [],
        "Networks from which files are fetched although they are not public, such as 10.1.0.0/16.",
        unset="public addresses only",
        metavar="NETWORK",
    )
    fetch_ports: Ports = _setting(
        "Fetching",
        [80, 443],
        "The ports from which files are fetched; hosts that are allowed by name may have others.",
        metavar="PORT",
    )
    fetch_user_agent: str = _setting(
        "Fetching",
        "ain-server",
        "What this server calls itself to the hosts that it fetches from; some want an address to write to.",
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]([ -~]*[!-~])?$",
    )
    fetch_ca_file: UserPath | None = _setting(
        "Fetching",
        None,
        "Certificates, in PEM, of authorities that are trusted beside the public ones, such as your company's own.",
        metavar="FILE",
    )
    fetch_proxy: SecretStr | None = _setting(
        "Fetching",
        None,
        "A proxy through which everything is fetched, such as http://proxy:3128; it may hold a name and a password. "
        "The proxy then dials, so it has to refuse what lies inside: this server refuses only the addresses that it "
        "finds by itself.",
        metavar="URL",
    )
    fetch_concurrency: int = _setting("Fetching", 64, "How many files are fetched at once.", ge=1, le=10_000)
    fetch_cache_mib: int = _setting(
        "Fetching",
        64,
        "Memory in MiB for fetched files, kept for as long as their host allows; 0 keeps none.",
        metavar="MIB",
        ge=0,
        le=1_048_576,
    )
    media_folders: Folders = _setting(
        "Fetching",
        [],
        "Folders of this machine whose files requests may name with file:// URLs. Every caller can then have each of "
        "these files read.",
        metavar="FOLDER",
    )

    # ---- Decoding
    decode_workers: int | None = _setting(
        "Decoding",
        None,
        "How many processes decode pictures, clips and documents.",
        unset="one for each CPU core",
        ge=1,
        le=1024,
    )
    missing_letters: Literal["warn", "refuse"] = _setting(
        "Decoding",
        "warn",
        "What becomes of a document's page that has letters for which neither the document nor this server has a font: "
        "warn shows it, with a warning in media_info; refuse refuses it.",
    )
    decode_timeout_s: float = _setting(
        "Decoding",
        20.0,
        "CPU time that decoding one picture, clip or document may take, or a third of the time by the clock; its "
        "process is then ended.",
        gt=0,
        le=3600,
    )
    decode_memory_mib: int = _setting(
        "Decoding",
        2048,
        "Memory in MiB that a decoding process may use on top of what it starts with.",
        metavar="MIB",
        ge=64,
        le=1_048_576,
    )
    scaled_decoding: bool = _setting(
        "Decoding",
        True,
        "Decode JPEG pictures that are to be much smaller at a reduced scale: several times quicker, with pixels that "
        "differ a little.",
    )
    media_memory_mib: int | None = _setting(
        "Decoding",
        None,
        "Memory in MiB for all pictures, clips and pages that are being prepared at once; what does not fit waits.",
        unset="a quarter of the machine's memory",
        metavar="MIB",
        ge=64,
        le=16_777_216,
    )
    media_cache_mib: int = _setting(
        "Decoding",
        512,
        "Memory in MiB for prepared pictures, kept in case the same are sent again; 0 keeps none.",
        metavar="MIB",
        ge=0,
        le=1_048_576,
    )

    # ---- Start-up and logs
    config: UserPath | None = _setting("Start-up and logs", None, "A TOML file with settings.", metavar="FILE")
    log_file: UserPath | None = _setting(
        "Start-up and logs",
        None,
        "Where the engine's own log goes.",
        unset="engine-PORT.log in ~/.local/state/ain-server",
        metavar="FILE",
    )
    log_level: LogLevel = _setting(
        "Start-up and logs", "info", "The least important messages that the server still logs."
    )
    log_format: Literal["text", "json"] = _setting(
        "Start-up and logs",
        "text",
        "How the server writes its log: text for people, json for collectors, one object a line.",
    )
    debuggable: bool = _setting(
        "Start-up and logs",
        False,
        "Let debuggers and profilers of the same user look into the server, such as py-spy. They can see its keys; by "
        "default only root's can look.",
    )
    log_max_mib: int = _setting(
        "Start-up and logs",
        64,
        "The disk that the engine's own log may take, in MiB: one half for the file, one for FILE.1, what came before.",
        ge=2,
        le=1_048_576,
    )
    otlp_endpoint: str | None = _setting(
        "Start-up and logs",
        None,
        "Where traces of requests are sent by OTLP over HTTP, such as http://collector:4318.",
        unset="no traces",
        metavar="URL",
    )
    otlp_sample_ratio: float = _setting(
        "Start-up and logs",
        1.0,
        "The share of requests that are traced, where the client's traceparent header does not decide it.",
        ge=0,
        le=1,
    )
    quiet: bool = _setting(
        "Start-up and logs", False, "Show no progress while starting, only that the server is ready, and errors."
    )
    warmup: bool = _setting(
        "Start-up and logs",
        True,
        "Answer a first request in private before the server says that it is ready, so that the first client does "
        "not wait longer than the others.",
    )

    def log_path(self, port: int) -> Path:
        """Where the engine's log goes for the server on `port`: `log_file`, or a file in the user's state folder."""
        return self.log_file or _state_folder() / f"engine-{port}.log"

    @property
    def state_folder(self) -> Path:
        """Where the server keeps what it makes for itself: logs, completed model folders."""
        return _state_folder()

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments only. `load_settings` merges the sources itself, to name in errors the one that is at fault."""
        return (init_settings,)

    @field_validator("model")
    @classmethod
    def _home_folder(cls, model: str) -> str:
        return str(Path(model).expanduser()) if model.startswith("~") else model

    @field_validator("root_path")
    @classmethod
    def _clean_root_path(cls, path: str) -> str:
        if path and not path.startswith("/"):
            raise ValueError("must begin with /")
        return path.rstrip("/")

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector_is_a_url(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", endpoint):
            raise ValueError(
                "must be an address such as http://collector:4318; keys go into OTEL_EXPORTER_OTLP_HEADERS"
            )
        return endpoint

    @field_validator("api_keys_file")
    @classmethod
    def _keys_file_exists(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path

    @field_validator("media_folders")
    @classmethod
    def _folders_are_there(cls, folders: list[Path]) -> list[Path]:
        for folder in folders:
            if not folder.is_dir():
                raise ValueError(f"there is no folder {folder}")
            if folder.resolve() == Path(folder.anchor or "/"):
                raise ValueError("would open every file of this machine: name a folder that holds media only")
        return [folder.absolute() for folder in folders]

    @field_validator("fetch_ca_file")
    @classmethod
    def _certificates_are_there(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path

    @field_validator("fetch_proxy")
    @classmethod
    def _proxy_is_a_url(cls, proxy: SecretStr | None) -> SecretStr | None:
        if proxy is not None and not re.fullmatch(
            r"https?://([^\s/@]+@)?[A-Za-z0-9._\[\]:-]+/?", proxy.get_secret_value()
        ):
            raise ValueError("must be an address such as http://proxy:3128")
        return proxy

    @field_validator("fetch_allowed_networks")
    @classmethod
    def _networks_are_readable(cls, networks: list[str]) -> list[str]:
        for network in networks:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise ValueError(f"{network} is not an address or a network such as 10.1.0.0/16") from None
        return networks

    @field_validator("engine_args")
    @classmethod
    def _engine_names(cls, args: dict[str, Any]) -> dict[str, Any]:
        args = with_snake_names(args)
        for name in args:
            if name in cls.model_fields:
                raise ValueError(f"{name} is a setting of its own: {flag_of(name)} ({env_of(name)})")
        return args

    @model_validator(mode="after")
    def _public_address_needs_a_decision(self) -> Self:
        keys = bool(self.api_keys or self.api_keys_file)
        if keys and self.allow_unauthenticated:
            raise _conflict("allow_unauthenticated", "contradicts the API keys that are set: keep one of the two")
        if not (self.on_loopback or keys or self.allow_unauthenticated):
            raise _conflict("host", f"other machines can reach {self.host}, and no API key is set. {THREE_WAYS_OUT}")
        return self

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        for low, high in (
            ("min_pixels", "max_pixels"),
            ("min_pixels", "max_pixels_ceiling"),
            ("max_pixels", "max_pixels_ceiling"),
        ):
            least, most = getattr(self, low), getattr(self, high)
            if least and most and least > most:
                raise _conflict(low, f"{least} is more than {high}, {most}")
        if self.node_rank >= self.nnodes:
            raise _conflict("node_rank", f"{self.node_rank} must be less than nnodes, {self.nnodes}")
        return self


THREE_WAYS_OUT = f"""Three ways out:
  - listen on this machine only: --host 127.0.0.1 (AIN_HOST)
  - ask for keys: --api-keys-file FILE (AIN_API_KEYS_FILE) or AIN_API_KEYS; {PROGRAM} --new-key makes one
  - let anyone in: --allow-unauthenticated (AIN_ALLOW_UNAUTHENTICATED=true)"""


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine can reach."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return "--engine-arg" if name == "engine_args" else "--" + name.replace("_", "-")


def env_of(name: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + name.upper()


def _conflict(name: str, problem: str) -> PydanticCustomError:
    """Two settings that do not go together; `name` is the one to blame."""
    return PydanticCustomError("conflict", "{problem}", {"name": name, "problem": problem})


def with_snake_names(args: Mapping[str, Any]) -> dict[str, Any]:
    return {name.strip().lstrip("-").replace("-", "_"): value for name, value in args.items()}


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):  # the XDG rules say to ignore a relative one
        return Path(base) / "ain-server"
    try:
        return Path.home() / ".local" / "state" / "ain-server"
    except RuntimeError:  # a container's user without a home
        return Path(tempfile.gettempdir()) / "ain-server"
