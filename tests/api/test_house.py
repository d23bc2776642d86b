"""Everything around the answers: health, models, keys, CORS, request ids, metrics, the OpenAPI page."""

from __future__ import annotations

import contextlib
import json
import re

import httpx
import openai
import pytest

from server.engine.scripted import Script
from tests.api.house import CHAT, House, body, error_of, image_url, open_house
from tests.model import NAME
from tests.waiting import eventually

KEYS = ["ain-0123456789abcdefghijkl", "ain-zyxwvutsrqponmlkjihgfe"]


# ---- Health


def health(house: House) -> dict[str, tuple[int, str | None]]:
    """Status and reason of each health address."""
    replies = {name: house.http.get(f"/health{name}") for name in ("", "/ready", "/live")}
    return {name: (reply.status_code, reply.json().get("reason")) for name, reply in replies.items()}


def test_a_house_that_is_up_is_ready(house: House) -> None:
    assert house.http.get("/health/live").json() == {"status": "live"}
    assert house.http.get("/health/ready").json() == {"status": "ready", "model": NAME}
    assert house.http.get("/health").json() == house.http.get("/health/ready").json()


def test_a_house_that_starts_lives_and_says_what_it_does() -> None:
    with open_house(Script(start_delay=60), up=False) as house:
        phase = "start the scripted engine"
        assert eventually(lambda: house.services.phase == phase)
        assert health(house) == {"": (503, phase), "/ready": (503, phase), "/live": (200, None)}
        assert house.http.get("/health/ready").headers["retry-after"] == "5"
        [model] = house.http.get("/v1/models").json()["data"]
        assert (model["id"], model["max_model_len"]) == (NAME, None)


def test_a_house_becomes_ready_by_itself() -> None:
    with open_house(Script(start_delay=0.2), up=False) as house:
        assert house.http.get("/health").status_code == 503
        assert eventually(lambda: house.http.get("/health").status_code == 200)
        assert house.ask().status_code == 200


def test_a_house_that_is_still_warming_up_is_not_ready() -> None:
    with open_house(Script(first_delay=60), up=False) as house:
        assert eventually(lambda: house.services.phase == "warm up")
        assert house.http.get("/health").json() == {"status": "not ready", "reason": "warm up"}
        assert error_of(house.ask(), 503)["code"] == "engine_not_ready"


def test_the_warm_up_is_a_picture_and_a_word_and_can_be_left_out() -> None:
    with open_house(warmup=False) as house:
        assert house.engine.requests == []
    with open_house(up=False) as house:
        assert eventually(lambda: house.services.not_ready_because() is None)
        [request] = house.engine.requests
        assert len(request.prompt.pictures) == 1


def test_a_house_whose_engine_does_not_start_says_so_and_tells_the_process() -> None:
    with open_house(Script(fail_start=True), up=False) as house:
        assert eventually(lambda: house.failures)
        assert house.failures == [("The script says that the engine fails to start.", "Change the script.")]
        reason = "failed to start"
        assert health(house) == {"": (503, reason), "/ready": (503, reason), "/live": (200, None)}
        assert error_of(house.ask(), 503)["code"] == "engine_not_ready"


def test_a_house_whose_engine_dies_while_it_warms_up_has_failed_to_start() -> None:
    with open_house(Script(fail_after=0), up=False) as house:
        assert eventually(lambda: house.failures)
        assert house.failures[0][0].startswith("The engine failed on its first request")
        assert health(house)["/ready"] == (503, "failed to start")


def test_a_model_that_cannot_be_had_is_told_to_the_process() -> None:
    with open_house(up=False, model="./nowhere") as house:
        assert eventually(lambda: house.failures)
        assert house.failures[0][0] == "There is no folder ./nowhere."


def test_a_draining_house_lives_and_is_not_ready() -> None:
    with open_house() as house:
        house.services.gate.drain()
        assert health(house) == {"": (503, "draining"), "/ready": (503, "draining"), "/live": (200, None)}


def test_a_house_with_a_dead_engine_lives_and_is_not_ready() -> None:
    with open_house(engine_restarts=0) as house:
        house.engine.die()
        assert eventually(lambda: house.failures)
        assert health(house) == {"": (503, "engine dead"), "/ready": (503, "engine dead"), "/live": (200, None)}


# ---- Models


def test_the_list_of_models(house: House) -> None:
    listed = house.http.get("/v1/models").json()
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert model == {
        "id": NAME,
        "object": "model",
        "created": model["created"],
        "owned_by": "vllm",
        "max_model_len": 4096,
    }
    assert isinstance(model["created"], int)


def test_one_model(house: House) -> None:
    assert house.http.get(f"/v1/models/{NAME}").json() == house.http.get("/v1/models").json()["data"][0]


def test_a_model_under_several_names_one_with_a_slash() -> None:
    with open_house(served_model_name=["ain", "MBZUAI/AIN"]) as house:
        assert [model["id"] for model in house.http.get("/v1/models").json()["data"]] == ["ain", "MBZUAI/AIN"]
        for path in ("/v1/models/MBZUAI/AIN", "/v1/models/MBZUAI%2FAIN", "/v1/models/MBZUAI%2fAIN"):
            assert house.http.get(path).json()["id"] == "MBZUAI/AIN"
        with openai.OpenAI(base_url=f"{house.url}/v1", api_key="none") as client:
            assert client.models.retrieve("MBZUAI/AIN").id == "MBZUAI/AIN"
        assert house.post(body() | {"model": "MBZUAI/AIN"}).status_code == 200


@pytest.mark.parametrize("name", ["gpt-5", "a/b", "%2E%2E", "نموذج"])
def test_an_unknown_model_has_no_entry(house: House, name: str) -> None:
    error = error_of(house.http.get(f"/v1/models/{name}"), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


# ---- Keys

OPEN = ("/health", "/health/live", "/health/ready")
GUARDED = (
    ("GET", "/v1/models"),
    ("GET", f"/v1/models/{NAME}"),
    ("POST", CHAT),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/"),
    ("GET", "/nowhere"),
    ("DELETE", CHAT),
    ("GET", "/health/"),
)


def test_without_keys_the_house_asks_for_none(house: House) -> None:
    assert house.http.get("/v1/models").status_code == 200
    assert house.http.get("/v1/models", headers={"authorization": "Bearer anything"}).status_code == 200


def test_with_keys_every_address_but_health_is_guarded() -> None:
    with open_house(api_keys=KEYS) as house:
        for path in OPEN:
            assert house.http.get(path).status_code == 200
        for method, path in GUARDED:
            error = error_of(house.http.request(method, path), 401)
            assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
            assert error["param"] is None
        for key in KEYS:
            headers = {"authorization": f"Bearer {key}"}
            assert house.http.get("/v1/models", headers=headers).status_code == 200
            assert house.post(body(), headers=headers).status_code == 200
        for wrong in ("Bearer wrong", f"Bearer {KEYS[0]}x", f"Basic {KEYS[0]}", KEYS[0], "Bearer"):
            response = house.http.get("/v1/models", headers={"authorization": wrong})
            error = error_of(response, 401)
            assert KEYS[0] not in error["message"]


def test_nothing_is_read_from_a_stranger() -> None:
    with open_house(api_keys=KEYS) as house, house.raw((f"POST {CHAT} HTTP/1.1", "Content-Length: 1000")) as stranger:
        assert stranger.recv(1 << 16).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("path", ["/health/live/../../v1/models", "/health%2Flive/x", "/v1/models?/health", "//health"])
def test_no_spelling_of_an_address_leads_past_the_door(path: str) -> None:
    with open_house(api_keys=KEYS) as house, house.raw((f"GET {path} HTTP/1.1",)) as stranger:
        assert stranger.recv(1 << 16).startswith(b"HTTP/1.1 401")


def test_a_forged_host_opens_no_door() -> None:
    with open_house(api_keys=KEYS) as house:
        for host, status in (("localhost/health", 400), ("x/health/live?", 400), ("health", 401)):
            assert house.http.get("/v1/models", headers={"host": host}).status_code == status


# ---- CORS

PREFLIGHT = {
    "origin": "https://example.org",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}


def test_other_origins_may_do_nothing_by_default(house: House) -> None:
    assert "access-control-allow-origin" not in house.http.options(CHAT, headers=PREFLIGHT).headers
    response = house.http.get("/v1/models", headers={"origin": "https://example.org"})
    assert "access-control-allow-origin" not in response.headers


def test_origins_that_the_operator_names_may_call_and_read() -> None:
    with open_house(cors_origins=["https://example.org"], api_keys=KEYS) as house:
        asked = house.http.options(CHAT, headers=PREFLIGHT)
        assert asked.status_code == 200, "a preflight carries no key"
        assert asked.headers["access-control-allow-origin"] == "https://example.org"
        assert "POST" in asked.headers["access-control-allow-methods"]
        allowed = {name.strip().lower() for name in asked.headers["access-control-allow-headers"].split(",")}
        assert {"authorization", "content-type", "x-stainless-os"} <= allowed

        other = house.http.options(CHAT, headers=PREFLIGHT | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers

        headers = {"origin": "https://example.org", "authorization": f"Bearer {KEYS[0]}"}
        good = house.post(body(), headers=headers)
        exposed = {name.strip().lower() for name in good.headers["access-control-expose-headers"].split(",")}
        assert {"x-request-id", "retry-after", "x-should-retry"} <= exposed


def test_a_browser_may_read_errors_too() -> None:
    with open_house(cors_origins=["https://example.org"], api_keys=KEYS) as house:
        headers = {"origin": "https://example.org"}
        keyed = headers | {"authorization": f"Bearer {KEYS[0]}"}
        replies = {
            401: house.post(body(), headers=headers),
            400: house.post({}, headers=keyed),
            404: house.http.get("/nowhere", headers=keyed),
        }
        house.services.gate.drain()
        replies[503] = house.post(body(), headers=keyed)
        for status, reply in replies.items():
            error_of(reply, status)
            assert reply.headers["access-control-allow-origin"] == "https://example.org"


# ---- Request ids


@pytest.mark.parametrize("given", ["req-1", "a", "0123abcd-ef:1.2_3", "x" * 128])
def test_a_sane_request_id_comes_back(house: House, given: str) -> None:
    assert house.http.get("/health", headers={"x-request-id": given}).headers["x-request-id"] == given
    assert house.post({}, headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize(
    "given", ["", "x" * 129, "a b", "<script>", 'a"b', "a\tb", "é".encode(), "a%0d%0ab", "a/b", "a,b"]
)
def test_a_hostile_request_id_is_replaced(house: House, given: str | bytes) -> None:
    value = given if isinstance(given, bytes) else given.encode()
    returned = house.http.get("/health", headers={b"x-request-id": value}).headers["x-request-id"]
    assert re.fullmatch(r"req-[0-9a-f]{32}", returned)


def test_every_reply_has_a_request_id_of_its_own(house: House) -> None:
    replies = [
        house.ask(),
        house.ask(stream=True),
        house.post({}),
        house.http.get("/nowhere"),
        house.http.put("/health"),
        house.http.get("/metrics"),
        house.ask([image_url("x")]),
    ]
    ids = [reply.headers.get_list("x-request-id") for reply in replies]
    assert all(len(given) == 1 for given in ids)
    assert len({given[0] for given in ids}) == len(replies)


# ---- Metrics


def metrics(house: House) -> httpx.Response:
    return house.http.get("/metrics")


def test_metrics_are_in_prometheus_text_format(house: House) -> None:
    response = metrics(house)
    assert response.headers["content-type"].startswith("text/plain; version=")
    names = set(re.findall(r"^# TYPE (\S+) ", response.text, re.MULTILINE))
    assert {
        "ain_http_requests_total",
        "ain_http_request_seconds",
        "ain_requests_inside",
        "ain_requests_refused_total",
        "ain_ready",
    } <= names


def test_requests_are_counted_by_route_and_status(house: House) -> None:
    def count(route: str, status: int, method: str = "POST") -> float:
        pattern = rf'^ain_http_requests_total{{method="{method}",route="{re.escape(route)}",status="{status}"}} (\S+)$'
        found = re.search(pattern, metrics(house).text, re.MULTILINE)
        return float(found[1]) if found else 0

    before = (
        count(CHAT, 200),
        count(CHAT, 400),
        count("/v1/models/{model_id:path}", 404, "GET"),
        count("other", 404, "GET"),
    )
    house.ask()
    house.ask(stream=True)
    house.post({})
    house.http.get("/v1/models/nobody")
    house.http.get("/some/thing/made/up")
    after = (
        count(CHAT, 200),
        count(CHAT, 400),
        count("/v1/models/{model_id:path}", 404, "GET"),
        count("other", 404, "GET"),
    )
    assert [late - early for early, late in zip(before, after, strict=True)] == [2, 1, 1, 1]


def test_metrics_never_grow_by_what_strangers_type(house: House) -> None:
    house.http.get("/stranger-typed-this")
    house.post(body() | {"model": "stranger-typed-this"})
    assert "stranger-typed-this" not in metrics(house).text


def test_metrics_show_who_is_inside_and_whether_the_house_is_ready() -> None:
    with open_house() as house:
        assert "\nain_ready 1.0\n" in metrics(house).text
        assert "\nain_requests_inside 0.0\n" in metrics(house).text
        house.engine.script = Script(stall_after=0)
        with house.raw_chat(body()):
            assert eventually(lambda: house.engine.running == 1)
            assert "\nain_requests_inside 1.0\n" in metrics(house).text
        house.services.gate.drain()
        assert "\nain_ready 0.0\n" in metrics(house).text


def test_refusals_are_counted_by_their_reason() -> None:
    def count(house: House, reason: str) -> float:
        found = re.search(
            rf'^ain_requests_refused_total{{reason="{reason}"}} (\S+)$', metrics(house).text, re.MULTILINE
        )
        return float(found[1]) if found else 0

    with open_house(max_requests=1) as house:
        before = count(house, "overloaded"), count(house, "draining")
        house.engine.script = Script(stall_after=0)
        with house.raw_chat(body()):
            assert eventually(lambda: house.engine.running == 1)
            house.ask()
            house.ask(stream=True)
        house.services.gate.drain()
        house.ask()
        assert (count(house, "overloaded"), count(house, "draining")) == (before[0] + 2, before[1] + 1)


# ---- The OpenAPI page


def test_the_openapi_page_describes_the_body_of_a_chat_request(house: House) -> None:
    assert house.http.get("/docs").status_code == 200
    document = house.http.get("/openapi.json").json()
    content = document["paths"][CHAT]["post"]["requestBody"]["content"]
    properties = content["application/json"]["schema"]["properties"]
    assert {"model", "messages", "temperature", "stream"} <= set(properties)
    assert "$ref" not in str(content)
    assert set(document["paths"]) == {
        CHAT,
        "/v1/models",
        "/v1/models/{model_id}",
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/version",
    }


def test_under_a_reverse_proxys_path_the_page_knows_it() -> None:
    with open_house(root_path="/ain") as house:
        assert house.http.get("/openapi.json").json()["servers"] == [{"url": "/ain"}]
        assert house.http.get("/v1/models").status_code == 200
        assert house.http.get("/ain/v1/models").status_code == 200


# ---- The log


def test_the_log_has_a_line_for_each_request_and_never_what_was_said(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "ain"), caplog.at_level("DEBUG", "server"):
        house.ask("my secret words", made_up_field="secret too")
        house.post(body("my secret words") | {"temperature": 7}, headers={"x-request-id": "the-second"})
        assert eventually(lambda: "the-second" in caplog.text)
    assert re.search(rf"POST {CHAT} 200 [0-9.]+ s req-[0-9a-f]{{32}}", caplog.text)
    assert re.search(rf"POST {CHAT} 400 [0-9.]+ s the-second", caplog.text)
    assert "secret" not in caplog.text


def test_bodies_that_never_end_do_not_fill_the_memory() -> None:
    """Two MiB for all bodies: what goes over is told to try again, and what was held is given back."""
    with open_house(max_body_mib=1, max_bodies_mib=2) as house:
        head = (f"POST {CHAT} HTTP/1.1", f"Content-Length: {1 << 20}", "Content-Type: application/json")
        unfinished = [house.raw(head, b" " * ((1 << 20) - 1)) for _ in range(2)]
        refused = None
        for _ in range(200):
            refused = house.http.post(CHAT, content=b" " * 1000, headers={"content-type": "application/json"})
            if refused.status_code == 503:
                break
        assert refused is not None
        error = error_of(refused, 503)
        assert error["code"] == "overloaded"
        assert refused.headers["retry-after"]
        for connection in unfinished:
            connection.close()
        assert eventually(lambda: house.ask().status_code == 200)


def test_the_bodies_of_one_key_leave_room_for_anothers() -> None:
    with open_house(api_keys=KEYS, max_body_mib=1, max_bodies_mib=2) as house:
        greedy, other = ({"authorization": f"Bearer {key}", "content-type": "application/json"} for key in KEYS[:2])
        head = (f"POST {CHAT} HTTP/1.1", f"Content-Length: {1 << 20}", f"Authorization: Bearer {KEYS[0]}")
        content = json.dumps(body()).encode() + b" " * 500_000
        with contextlib.ExitStack() as unfinished:

            def is_full() -> bool:
                """Whether one more of that key is refused; those that still come may settle it otherwise."""
                unfinished.enter_context(house.raw(head, b" " * ((1 << 20) - 1)))
                return house.http.post(CHAT, content=content, headers=greedy).status_code == 503

            assert eventually(is_full)
            for _ in range(5):
                assert house.http.post(CHAT, content=content, headers=other).status_code == 200
        assert eventually(lambda: house.http.post(CHAT, content=content, headers=greedy).status_code == 200)
