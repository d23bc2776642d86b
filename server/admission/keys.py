"""API keys: who may enter.

Keys are held only as SHA-256 digests, and every request is compared with all of them, so that neither a memory dump nor
the time of an answer tells anything about a key. (A slow password hash would add nothing: keys are random, with at
least 128 bits.)

A keys file has one key a line:

    # a comment
    ain-J2l0...                         a key
    reading-room = ain-9xQe...          a key with a name, by which people know it
    archive = sha256:1f6b...            a key of which this machine knows only the hash

`ain-serve --new-key` makes a key and its hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from server.core import Caller
from server.errors import Unauthorized

MIN_KEY_LENGTH = 22
"""128 bits need 22 characters in base64: what is shorter can be guessed."""

MAX_HEADER_LENGTH = 4096
"""A longer Authorization header is refused unread, so that nobody makes the server hash megabytes."""

ANONYMOUS = Caller(name="anonymous", tenant="")

MISSING_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY)."
)
INCORRECT_KEY = "Incorrect API key provided."

NAMED = re.compile(r"([A-Za-z0-9_.@-]{1,64})\s*=\s*(?!=*$)(.+)")
"""NAME = KEY. What has nothing but = signs after the first one is a key with base64 padding, not a name."""
HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")
PRINTABLE = re.compile(r"[!-~]+")


class KeysError(ValueError):
    """A key that cannot be taken. The message says where it stands and never what it is."""


def new_key() -> str:
    """A fresh random key of 256 bits."""
    return "ain-" + secrets.token_urlsafe(32)


def hashed(key: str) -> str:
    """What a keys file may hold in a key's place."""
    return "sha256:" + _digest(key).hex()


def _digest(key: str) -> bytes:
    # A header can hold any character, even half of a surrogate pair: hashing must not fail on one.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class _Key:
    digest: bytes
    caller: Caller


class KeyRing:
    """The keys that open the server; an empty ring lets everyone in as the anonymous caller."""

    def __init__(self, keys: Iterable[str] = (), file: Path | None = None) -> None:
        """Takes keys written as in a keys file, and such a file.

        Raises KeysError for a key that is too short, malformed or there twice, and for a file without any key: an
        empty file must not open the server to everyone.
        """
        self.warnings: list[str] = []
        """What is not wrong but unwise, for a person to read at start-up."""
        self.file = file
        self._keys: list[_Key] = []
        for number, text in enumerate(keys, 1):
            self._add(text.strip(), f"API key {number}")
        self._given = tuple(self._keys)
        if file is not None:
            self._add_file(file)

    def __len__(self) -> int:
        return len(self._keys)

    def read_again(self) -> list[Caller]:
        """Take the file as it is now; returns the callers whose keys are gone.

        Raises KeysError for a file that is wrong anywhere: then all stays as it was.
        """
        if self.file is None:
            return []
        fresh = KeyRing()
        fresh._keys.extend(self._given)
        fresh._add_file(self.file)
        there = {key.digest for key in fresh._keys}
        gone = [key.caller for key in self._keys if key.digest not in there]
        self.warnings, self._keys = fresh.warnings, fresh._keys
        return gone

    def state_of_file(self) -> tuple[int, ...]:
        """What differs once somebody has written to the file or put another in its place; empty while there is none."""
        try:
            found = self.file.stat() if self.file is not None else None
        except OSError:
            found = None
        return () if found is None else (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def authenticate(self, authorization: str | None) -> Caller:
        """The caller whose key an Authorization header holds; raises Unauthorized if it holds none or a wrong one."""
        if not self._keys:
            return ANONYMOUS
        if authorization is None:
            raise Unauthorized(MISSING_KEY)
        if len(authorization) > MAX_HEADER_LENGTH:
            raise Unauthorized(INCORRECT_KEY)
        scheme, _, key = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized(MISSING_KEY)
        return self._find(_digest(key.strip()))

    def _find(self, digest: bytes) -> Caller:
        found: Caller | None = None
        for key in self._keys:  # all of them, always: the time tells nothing about which one is near
            if hmac.compare_digest(key.digest, digest):
                found = key.caller
        if found is None:
            raise Unauthorized(INCORRECT_KEY)
        return found

    def _add_file(self, file: Path) -> None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
            readable_by_all = file.stat().st_mode & stat.S_IROTH
        except OSError as error:
            raise KeysError(f"cannot read the keys file {file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise KeysError(f"the keys file {file} is not a text file in UTF-8") from None
        if readable_by_all:
            self.warnings.append(f"every user of this machine can read the keys in {file}: chmod 600 {file}")
        before = len(self._keys)
        for number, line in enumerate(lines, 1):
            text = re.sub(r"(^|\s)#.*", "", line).strip()
            if text:
                self._add(text, f"{file} line {number}")
        if len(self._keys) == before:
            raise KeysError(f"the keys file {file} holds no key")

    def _add(self, text: str, where: str) -> None:
        named = NAMED.fullmatch(text)
        digest = _read_key(named[2] if named else text, where)
        name = named[1] if named else f"key-{digest.hex()[:8]}"
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                raise KeysError(f"{where}: this key is there twice (as {key.caller.name})")
            if key.caller.name == name:
                raise KeysError(f"{where}: the name {name} is there twice")
        self._keys.append(_Key(digest, Caller(name, _tenant(digest))))


def _read_key(text: str, where: str) -> bytes:
    """The digest of a key given in plain or as its hash."""
    if text.startswith("sha256:"):
        match = HASHED.fullmatch(text)
        if match is None:
            raise KeysError(f"{where}: sha256: must be followed by 64 hexadecimal digits")
        return bytes.fromhex(match[1])
    if not PRINTABLE.fullmatch(text):
        raise KeysError(f"{where}: a key must be one word of ASCII characters, and a name of letters, digits, _ . @ -")
    if len(text) < MIN_KEY_LENGTH:
        raise KeysError(f"{where}: the key is shorter than {MIN_KEY_LENGTH} characters, so it could be guessed")
    return _digest(text)


def _tenant(digest: bytes) -> str:
    """An id that stays the same as long as the key does and that no other caller can work out."""
    return hashlib.sha256(b"ain-server tenant" + digest).hexdigest()[:32]
