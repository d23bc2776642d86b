"""Keys: who gets in, who does not, and that nothing says a key aloud."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from pathlib import Path

import pytest

from server.admission.keys import ANONYMOUS, MAX_HEADER_LENGTH, KeyRing, KeysError, hashed, new_key
from server.core import Caller
from server.errors import Unauthorized

KEY = "ain-0123456789abcdefghijkl"
OTHER = "ain-zyxwvutsrqponmlkjihgfe"


def write(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def refusal(ring: KeyRing, header: str | None) -> Unauthorized:
    with pytest.raises(Unauthorized) as caught:
        ring.authenticate(header)
    return caught.value


# ---- At the door


def test_an_empty_ring_lets_everyone_in() -> None:
    assert KeyRing().authenticate(None) == ANONYMOUS == Caller("anonymous", "")
    assert KeyRing().authenticate("Bearer anything") == ANONYMOUS
    assert len(KeyRing()) == 0


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} ", f" Bearer {KEY}"])
def test_a_key_opens(header: str | None) -> None:
    assert KeyRing([f"desk={KEY}"]).authenticate(header).name == "desk"


def test_every_key_opens_as_its_own_caller() -> None:
    ring = KeyRing([f"first={KEY}", f"second={OTHER}"])
    first, second = ring.authenticate(f"Bearer {KEY}"), ring.authenticate(f"Bearer {OTHER}")
    assert (first.name, second.name) == ("first", "second")
    assert first.tenant != second.tenant


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", KEY, f"Token {KEY}"])
def test_a_missing_key_is_told_how_to_send_one(header: str | None) -> None:
    error = refusal(KeyRing([KEY]), header)
    assert error.message.startswith("You didn't provide an API key.")
    assert (error.status, error.type, error.code) == (401, "authentication_error", "invalid_api_key")


@pytest.mark.parametrize(
    "key",
    [OTHER, KEY[:-1], KEY + "x", KEY.upper(), f"{KEY} {KEY}", "مفتاح", "\udcff", "\x00", hashed(KEY), "x" * 10_000_000],
    ids=lambda key: ascii(key[:12]),
)
def test_a_wrong_key_is_refused_and_not_repeated(key: str) -> None:
    error = refusal(KeyRing([KEY]), f"Bearer {key}")
    assert error.message == "Incorrect API key provided."


def test_a_huge_header_is_not_even_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing([KEY])
    monkeypatch.setattr(hashlib, "sha256", lambda *_: pytest.fail("hashed"))
    refusal(ring, "Bearer " + "x" * MAX_HEADER_LENGTH)


@pytest.mark.parametrize("key", [KEY, OTHER, new_key()], ids=["first", "last", "unknown"])
def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    ring = KeyRing([KEY, new_key(), OTHER])
    compared: list[object] = []
    compare = hmac.compare_digest

    def counting(kept: bytes, given: bytes) -> bool:
        compared.append(kept)
        return compare(kept, given)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    with contextlib.suppress(Unauthorized):
        ring.authenticate(f"Bearer {key}")
    assert len(compared) == 3


# ---- What is kept


def test_no_key_is_kept_in_plain(tmp_path: Path) -> None:
    ring = KeyRing([KEY], write(tmp_path, f"desk = {OTHER}"))
    kept = repr(vars(ring))
    assert KEY not in kept
    assert OTHER not in kept


def test_a_tenant_stays_the_same_as_long_as_its_key() -> None:
    tenant = KeyRing([KEY]).authenticate(f"Bearer {KEY}").tenant
    assert tenant == KeyRing([OTHER, f"desk={hashed(KEY)}"]).authenticate(f"Bearer {KEY}").tenant
    assert tenant not in hashed(KEY)


def test_a_key_without_a_name_gets_a_stable_one() -> None:
    assert KeyRing([KEY]).authenticate(f"Bearer {KEY}").name == f"key-{hashed(KEY)[7:15]}"


def test_new_keys_are_long_and_differ() -> None:
    first, second = new_key(), new_key()
    assert first != second
    assert len(first) == len("ain-") + 43  # 256 bits in base64


# ---- The file


def test_a_file_holds_plain_and_hashed_keys_with_names_and_comments(tmp_path: Path) -> None:
    third = new_key()
    digest = hashed(third).removeprefix("sha256:").upper()
    lines = ["\ufeff# staff", "", f"{KEY}  # the desk's", f"reading-room = {OTHER}", f"archive=sha256:{digest}", ""]
    file = write(tmp_path, "\r\n".join(lines))
    ring = KeyRing(file=file)
    names = [ring.authenticate(f"Bearer {key}").name for key in (KEY, OTHER, third)]
    assert names == [f"key-{hashed(KEY)[7:15]}", "reading-room", "archive"]
    assert ring.warnings == []


def test_a_key_may_end_in_base64_padding(tmp_path: Path) -> None:
    key = "QUJDREVGR0hJSktMTU5PUFFSUw=="
    assert KeyRing(file=write(tmp_path, key)).authenticate(f"Bearer {key}") != ANONYMOUS
    assert KeyRing(file=write(tmp_path, f"desk = {key}")).authenticate(f"Bearer {key}").name == "desk"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"{KEY}\nshort-secret", "line 2: the key is shorter than 22 characters"),
        ("desk = short-secret", "line 1: the key is shorter than 22 characters"),
        ("sha256:abc", "line 1: sha256: must be followed by 64 hexadecimal digits"),
        (f"desk = {KEY} {KEY}", "line 1: a key must be one word of ASCII characters"),
        (f"a name = {KEY}", "line 1: a key must be one word of ASCII characters"),
        ("مفتاح" * 10, "line 1: a key must be one word of ASCII characters"),
        (f"desk = {KEY}\n\ndesk = {OTHER}", "line 3: the name desk is there twice"),
        (f"desk = {KEY}\n{hashed(KEY)}", "line 2: this key is there twice (as desk)"),
        ("# nothing but a comment\n", "holds no key"),
        ("", "holds no key"),
        (b"\xff\xfe", "is not a text file in UTF-8"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_by_its_line_but_not_said(
    tmp_path: Path, text: str | bytes, complaint: str
) -> None:
    with pytest.raises(KeysError) as caught:
        KeyRing(file=write(tmp_path, text))
    message = str(caught.value)
    assert complaint in message
    for secret in (KEY, OTHER, "short-secret", "مفتاح"):
        assert secret not in message


def test_a_bad_key_from_the_settings_is_counted() -> None:
    with pytest.raises(KeysError, match="API key 2: the key is shorter"):
        KeyRing([KEY, "short"])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match=r"cannot read the keys file .*none: No such file"):
        KeyRing(file=tmp_path / "none")


def test_a_file_that_everyone_can_read_is_remarked_on(tmp_path: Path) -> None:
    file = write(tmp_path, KEY, mode=0o644)
    assert KeyRing(file=file).warnings == [f"every user of this machine can read the keys in {file}: chmod 600 {file}"]
