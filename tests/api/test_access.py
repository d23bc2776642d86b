"""What asks for which key, and at which port: the API, metrics, and the API's description."""

from __future__ import annotations

import re
import socket
from typing import Final

import httpx
import pytest

from tests.api.house import House, open_house

KEY: Final = "ain-a-key-of-the-api-0001"
METRICS_KEY: Final = "ain-a-key-of-the-metrics-1"
ANOTHER_HOST: Final = re.compile(r"""(?:src|href)=["']?(?:https?:)?//|url\(["']?https?:""")


def get(house: House, path: str, key: str | None = None) -> int:
    return house.http.get(path, headers={"authorization": f"Bearer {key}"} if key else {}).status_code


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_metrics_key_opens_metrics_alone_and_the_apis_keys_do_not() -> None:
    with open_house(api_keys=[KEY], metrics_key=METRICS_KEY) as house:
        assert [get(house, "/metrics", key) for key in (METRICS_KEY, KEY, None)] == [200, 401, 401]
        assert [get(house, "/v1/models", key) for key in (METRICS_KEY, KEY, None)] == [401, 200, 401]


def test_without_api_keys_a_metrics_key_still_guards_metrics() -> None:
    with open_house(metrics_key=METRICS_KEY) as house:
        assert [get(house, "/metrics", key) for key in (METRICS_KEY, None)] == [200, 401]
        assert get(house, "/v1/models") == 200


@pytest.mark.parametrize("guarded", [False, True], ids=["open", "with a key of its own"])
def test_a_metrics_port_has_metrics_and_health_and_nothing_else(guarded: bool) -> None:
    port = free_port()
    key = {"metrics_key": METRICS_KEY} if guarded else {}
    with (
        open_house(api_keys=[KEY], metrics_port=port, **key) as house,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", verify=False, trust_env=False) as monitor,  # noqa: S501
    ):
        headers = {"authorization": f"Bearer {METRICS_KEY if guarded else KEY}"}
        assert monitor.get("/metrics", headers=headers).status_code == 200
        assert monitor.get("/metrics").status_code == (401 if guarded else 200)
        assert monitor.get("/health/ready").status_code == 200
        for path in ("/v1/models", "/docs", "/openapi.json", "/"):
            assert monitor.get(path, headers={"authorization": f"Bearer {KEY}"}).status_code == 404
        assert monitor.post("/v1/chat/completions", json={}).status_code in (401, 404)
        assert [get(house, "/metrics", one) for one in (KEY, METRICS_KEY, None)] == [404, 404, 404]
        assert get(house, "/health/ready") == 200


def test_the_pages_of_the_description_need_no_other_host() -> None:
    with open_house(api_keys=[KEY], docs="open") as house:
        for page in ("/docs", "/redoc"):
            shown = house.http.get(page)
            assert shown.status_code == 200
            assert not ANOTHER_HOST.search(shown.text)
            assert "default-src 'self'" in shown.headers["content-security-policy"]
            parts = re.findall(r"""(?:src|href)=["'](/[^"']+)""", shown.text)
            assert len(parts) >= 2
            assert [get(house, part) for part in parts] == [200] * len(parts)
        assert get(house, "/openapi.json") == 200
        assert [get(house, path) for path in ("/v1/models", "/docs/assets/../../v1/models", "/docsx")] == [401] * 3


def test_the_description_can_be_left_out() -> None:
    with open_house(docs="off") as house:
        assert [get(house, path) for path in ("/docs", "/redoc", "/openapi.json", "/docs/assets/x")] == [404] * 4


def test_under_a_reverse_proxys_path_the_page_finds_its_parts() -> None:
    with open_house(root_path="/ain") as house:
        assert '"/ain/docs/assets/swagger-ui-bundle.js"' in house.http.get("/ain/docs").text
        assert get(house, "/ain/docs/assets/swagger-ui-bundle.js") == 200
