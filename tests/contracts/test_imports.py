"""Imports run one way, and each of the things that must stand in one place stands in one place.

cli -> launch -> app -> routes -> {inference, openai} -> {media, families, admission, engine} -> core, errors
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Import:
    """One `import` in one file. `eager`: it runs when the file is loaded."""

    file: str
    name: str
    line: int
    eager: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.name}"


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


@cache
def files(folder: str) -> tuple[str, ...]:
    return tuple(sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py")))


@cache
def imports(folder: str) -> tuple[Import, ...]:
    return tuple(one for file in files(folder) for one in _imports_of(file))


def _imports_of(file: str) -> Iterator[Import]:
    def visit(node: ast.AST, eager: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Import(names=names):
                    yield from (Import(file, alias.name, child.lineno, eager) for alias in names)
                case ast.ImportFrom(module=module, names=names, level=level):
                    assert level == 0, f"{file}:{child.lineno} imports by a relative path"
                    # `from server import demo` and `from server.core import Usage`: the longest name that is a module.
                    for alias in names:
                        inner = f"{module}.{alias.name}"
                        yield Import(file, inner if is_module(inner) else str(module), child.lineno, eager)
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                    yield from visit(child, eager=False)
                case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                    yield from visit(child, eager=False)
                case _:
                    yield from visit(child, eager)

    yield from visit(tree(file), eager=True)


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def of(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def importers(*packages: str) -> set[str]:
    """The files under server/ that import any of the packages, however late."""
    return {one.file for one in imports("server") if of(one.name, *packages)}


def ours(room: str) -> set[str]:
    """What the files of a room import from server, without their own room; `room` is a file or folder of server/."""
    path = f"server/{room}"
    found = (one.name for one in imports("server") if one.file == f"{path}.py" or one.file.startswith(f"{path}/"))
    return {name for name in found if of(name, "server") and not of(name, f"server.{room}")}


def rooms(names: set[str]) -> set[str]:
    """server.media.prepare -> media."""
    return {name.split(".")[1] if "." in name else "" for name in names}


def uses(wanted: Callable[[ast.AST], bool]) -> set[str]:
    """The files under server/ in which a node is found."""
    return {file for file in files("server") if any(wanted(node) for node in ast.walk(tree(file)))}


def test_the_rules_below_see_something() -> None:
    assert len(files("server")) > 40
    assert Import("server/cli.py", "server.settings", 1, eager=True).name in {one.name for one in imports("server")}
    assert any(not one.eager for one in imports("server"))


# ---- One direction

MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "errors": set(),
    "machine": set(),
    "settings": set(),
    "families": {"core", "errors"},
    "media": {"core", "errors", "families", "machine", "settings"},
    "admission": {"core", "errors"},
    "telemetry": {"core", "errors"},
    "inference": {"admission", "core", "engine", "errors", "families", "telemetry"},
    "openai": {"core", "errors"},
    "services": {"admission", "core", "engine", "errors", "inference", "media", "settings"},
    "engine": {"core", "demo", "errors", "families", "machine", "settings"},
    "startup": {"core", "engine", "errors", "families", "inference", "media", "services", "settings", "telemetry"},
    "routes": {
        "admission",
        "core",
        "errors",
        "inference",
        "openai",
        "services",
        "settings",
        "telemetry",
    },
}
"""The rooms that each room of the house may know; `app`, `launch` and `cli` put them together."""


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_knows_only_the_rooms_below_it(room: str) -> None:
    assert rooms(ours(room)) <= MAY_IMPORT[room]


def test_every_room_has_its_rule() -> None:
    there = {Path(file).relative_to("server").parts[0].removesuffix(".py") for file in files("server")}
    assert there - set(MAY_IMPORT) == {"__init__", "__main__", "app", "cli", "launch", "demo"}


def test_only_the_top_of_the_house_knows_the_app_and_its_start() -> None:
    assert importers("server.app") == {"server/launch.py"}
    assert importers("server.launch") == {"server/cli.py"}
    assert importers("server.cli") == {"server/__main__.py"}
    assert importers("server.startup") == {"server/app.py"}


def test_inference_asks_an_engine_and_a_family_and_knows_none() -> None:
    assert {name for name in ours("inference") if of(name, "server.engine", "server.families")} == {
        "server.engine.protocol",
        "server.families.family",
    }


def test_routes_know_neither_the_engine_nor_the_insides_of_media() -> None:
    assert not {name for name in ours("routes") if of(name, "server.engine", "server.media", "server.families")}


def test_the_demo_model_is_only_found_never_run() -> None:
    """Its training code imports torch: the server knows no more of it than where its folder is."""
    outside = {
        one for one in imports("server") if of(one.name, "server.demo") and not one.file.startswith("server/demo/")
    }
    assert {(one.file, one.name) for one in outside} == {("server/engine/checkpoint.py", "server.demo")}
    assert not [one for one in imports("server") if one.file == "server/demo/__init__.py" and of(one.name, "torch")]


def test_demo_knows_nothing_of_the_server() -> None:
    assert ours("demo") == set()


def test_clients_speak_http_and_never_import_the_server() -> None:
    assert [str(one) for one in imports("clients") if of(one.name, "server")] == []


# ---- One place for each thing


def test_vllm_is_imported_by_the_engine_and_its_fork_server_alone() -> None:
    assert importers("vllm") == {"server/engine/vllm.py", "server/engine/inputs.py", "server/engine/fork_server.py"}


LATE = {
    "server/engine/inputs.py": "imported when the engine starts, in its thread",
    "server/media/decoding/resize.py": "imported by decode workers",
}


def test_no_file_imports_vllm_torch_or_transformers_at_load() -> None:
    """They take seconds; only what runs in a thread or process of its own may wait for them."""
    heavy = [one for one in imports("server") if one.eager and of(one.name, "vllm", "torch", "transformers")]
    assert [str(one) for one in heavy if not one.file.startswith("server/demo/") and one.file not in LATE] == []


def test_prometheus_and_opentelemetry_are_imported_by_telemetry_alone() -> None:
    for file in importers("prometheus_client", "opentelemetry"):
        assert file.startswith("server/telemetry/")


def test_fastapi_and_starlette_stay_at_the_door() -> None:
    for file in importers("fastapi", "starlette", "uvicorn"):
        assert file.startswith("server/routes/") or file in {"server/app.py", "server/launch.py"}


def test_pydantic_stays_where_things_come_in() -> None:
    allowed = {"server/routes/openapi.py"}
    rooms = ("server/openai/", "server/settings/")
    assert {file for file in importers("pydantic", "pydantic_settings") if not file.startswith(rooms)} == allowed


def test_sockets_are_opened_by_the_fetcher_and_the_listener_alone() -> None:
    assert importers("socket", "socketserver", "httpcore", "urllib.request", "http.client", "requests", "aiohttp") <= {
        "server/media/fetching/fetch.py",
        "server/media/workers/channel.py",  # a pair without an address, between the server and its own workers
        "server/launch.py",
    }
    assert not uses(lambda node: is_attribute(node, "socket", {"socket", "create_connection"})) - {
        "server/media/workers/channel.py",  # the type of one end
        "server/launch.py",
    }


def test_clips_documents_and_fast_pictures_are_decoded_in_worker_processes_alone() -> None:
    """What parses strangers' files in C never runs where other requests' memory is."""
    for package, *found in (
        ("av", "video"),
        ("pypdfium2", "pdf", "pdf_fonts", "pdf_notes"),
        ("simplejpeg", "decode"),
        ("pillow_heif", "heif"),
        ("PIL", "animation", "decode", "heif", "samples"),
    ):
        assert importers(package) - {"server/engine/inputs.py"} == {
            f"server/media/decoding/{file}.py" for file in found
        } | {file for file in importers(package) if file.startswith("server/demo/")}
    assert loaded("av,pypdfium2,simplejpeg,pillow_heif,PIL,torch", "server.launch") == []
    # httpx serves the rules of addresses as a parser of URLs; a client of it would be a second way out.
    assert importers("httpx") <= {"server/media/fetching/fetch.py", "server/media/fetching/addresses.py"}
    clients = {"Client", "AsyncClient", "get", "post", "request", "stream"}
    assert uses(lambda node: is_attribute(node, "httpx", clients)) == set()


def is_attribute(node: ast.AST, of_name: str, names: set[str]) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return name == of_name and attribute in names
    return False


ENVIRONMENT = {"environ", "getenv", "environb", "putenv", "getenvb"}
READERS = {
    "server/settings/sources.py": "the settings themselves",
    "server/settings/table.py": "reads XDG_STATE_HOME for the default of a setting",
    "server/engine/processes.py": "writes what the engine's processes are to read",
    "server/media/workers/box.py": "forgets it, in a decode worker",
    "server/engine/fork_server.py": "reads VLLM_TARGET_DEVICE, which we wrote for it",
}


def test_the_environment_is_read_by_the_settings_alone() -> None:
    found = uses(lambda node: is_attribute(node, "os", ENVIRONMENT))
    assert {file for file in found if not file.startswith("server/demo/")} == set(READERS)


def test_the_engines_processes_only_write_to_the_environment() -> None:
    """But for secrets, which are taken out of it while a process is started that is not to have them."""
    module = tree("server/engine/processes.py")
    calls = {
        node.attr
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and is_attribute(node.value, "os", ENVIRONMENT)
    }
    assert calls == {"setdefault", "pop", "update"}


def test_the_fork_server_reads_one_variable_by_name() -> None:
    constants = {
        call.args[0].value
        for call in ast.walk(tree("server/engine/fork_server.py"))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and is_attribute(call.func.value, "os", {"environ"})
        and isinstance(call.args[0], ast.Constant)
    }
    assert constants == {"VLLM_TARGET_DEVICE"}


def test_only_one_file_writes_frames() -> None:
    """`data:` at the beginning of bytes is a frame of server-sent events; in text it is a picture's URL."""

    def is_frame(node: ast.AST) -> bool:
        return isinstance(node, ast.Constant) and isinstance(node.value, bytes) and node.value.startswith(b"data:")

    assert uses(is_frame) == {"server/openai/sse.py"}


def test_routes_catch_nothing() -> None:
    """Errors rise to the middleware, which answers them all in one shape."""
    for file in ("answering", "chat", "models", "health"):
        assert not [node for node in ast.walk(tree(f"server/routes/{file}.py")) if isinstance(node, ast.Try)]


# ---- What is loaded when

LOADED = """
import importlib, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
print(*sorted(set(sys.argv[1].split(",")) & set(sys.modules)))
"""


def loaded(heavy: str, *modules: str) -> list[str]:
    """Which of the heavy modules a fresh process has loaded after importing some of ours."""
    answer = subprocess.run(
        [sys.executable, "-c", LOADED, heavy, *modules],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    return answer.stdout.split()


def test_the_command_line_loads_nothing_slow() -> None:
    slow = "torch,vllm,transformers,fastapi,starlette,uvicorn,numpy,PIL,httpx,prometheus_client,pydantic"
    assert loaded(slow, "server.cli") == []


def test_the_settings_load_no_engine_and_no_server() -> None:
    slow = "torch,vllm,transformers,fastapi,starlette,uvicorn,numpy,PIL,httpx,prometheus_client"
    assert loaded(slow, "server.settings") == []


def test_the_whole_server_loads_without_the_engine() -> None:
    assert loaded("torch,vllm,transformers,huggingface_hub,opentelemetry", "server.launch") == []
