"""Files that clients name by a file: URL: those inside the operator's folders, and no others, whatever the spelling."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import BadRequest, InvalidFile, InvalidImage, InvalidVideo, MediaKind
from server.media.fetching.files import Folders
from server.media.sources import Local, parse_source

pytestmark = pytest.mark.timeout(20)

PARAM = "messages[0].content[1].image_url.url"
INSIDE = b"a picture for everybody"
SECRET = b"nobody's business"
LIMIT = 1000


@dataclass
class Disk:
    """A folder that is open to clients, and what stands beside it."""

    root: Path
    folders: Folders

    @property
    def media(self) -> Path:
        """The open folder."""
        return self.root / "media"

    def read(self, url: str, kind: MediaKind = "image", max_bytes: int = LIMIT) -> bytes:
        """As a request would: from the URL to the bytes."""
        local = parse_source(url, kind, max_bytes=LIMIT, param=PARAM)
        assert isinstance(local, Local)
        return self.folders.read(local, max_bytes)

    def refusal(self, url: str, **options: int) -> BadRequest:
        with pytest.raises(InvalidImage) as caught:
            self.read(url, **options)
        assert caught.value.param == PARAM
        assert str(self.root) not in caught.value.message
        return caught.value


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Every descriptor that is opened in a test is closed at its end."""
    media, beside = tmp_path / "media", tmp_path / "media-of-others"
    for folder in (media, media / "pages", beside):
        folder.mkdir()
    for name in ("a.png", "pages/b c%.png", "صفحة.png", "~", "C:"):
        (media / name).write_bytes(INSIDE)
    for secret in (beside / "a.png", tmp_path / "secret.png"):
        secret.write_bytes(SECRET)
    before = set(os.listdir("/proc/self/fd"))
    yield Disk(tmp_path, Folders([media]))
    assert set(os.listdir("/proc/self/fd")) == before


# ---- What is opened ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "a.png",
        "./a.png",
        "pages/../a.png",
        "pages//..//a.png",
        "nowhere/./../a.png",
        "a.png/",
        "../media/a.png",
        "%61.png",
        "pages/b%20c%25.png",
        "pages%2Fb%20c%25.png",
        "pages/%2e%2e/a.png",
        "%D8%B5%D9%81%D8%AD%D8%A9.png",
        "صفحة.png",
        "~",
        "C:",
    ],
)
def test_a_file_inside_is_read_however_it_is_spelt(disk: Disk, path: str) -> None:
    for start in ("file://", "file:", "FILE://", "file://localhost", "file:///", " \tfile://"):
        assert disk.read(f"{start}{disk.media}/{path}") == INSIDE


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_any_name_that_a_file_can_have_can_be_quoted(disk: Disk, name: str) -> None:
    if name in (".", "..", "pages"):
        return
    (disk.media / name).write_bytes(name.encode())
    assert disk.read(f"file://{disk.media}/{quote(name)}") == name.encode()


def test_links_inside_are_followed_as_long_as_they_stay_inside(disk: Disk) -> None:
    (disk.media / "again.png").symlink_to("a.png")
    (disk.media / "pages" / "up.png").symlink_to("../again.png")
    (disk.media / "here").symlink_to(disk.media)
    for name in ("again.png", "pages/up.png", "here/pages/../here/a.png"):
        assert disk.read(f"file://{disk.media}/{name}") == INSIDE


def test_a_folder_may_itself_be_reached_by_a_link(disk: Disk) -> None:
    link = disk.root / "link"
    link.symlink_to("media")
    for folder in (link, disk.media):
        disk.folders = Folders([folder])
        assert disk.read(f"file://{link}/a.png") == disk.read(f"file://{disk.media}/a.png") == INSIDE


def test_several_folders_are_open_and_what_lies_between_is_not(disk: Disk) -> None:
    disk.folders = Folders([disk.media, disk.root / "media-of-others"])
    assert disk.read(f"file://{disk.media}/a.png") == INSIDE
    assert disk.read(f"file://{disk.root}/media-of-others/a.png") == SECRET
    disk.refusal(f"file://{disk.root}/secret.png")


def test_a_folder_named_from_where_the_server_stands_stays_that_folder(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(disk.root)
    disk.folders = Folders([Path("media")])
    monkeypatch.chdir("/")
    assert disk.read(f"file://{disk.media}/a.png") == INSIDE


def test_the_root_of_all_folders_opens_everything(disk: Disk) -> None:
    disk.folders = Folders([Path("/")])
    assert disk.read(f"file://{disk.root}/secret.png") == SECRET


def test_an_empty_file_is_read_as_such(disk: Disk) -> None:
    """What decodes it says what is wrong with it."""
    (disk.media / "empty.png").touch()
    assert disk.read(f"file://{disk.media}/empty.png") == b""


# ---- What is not ------------------------------------------------------------------------------------


def _told(error: BadRequest) -> tuple[object, ...]:
    return type(error), error.code, error.message, error.param


def test_what_is_outside_is_answered_like_what_is_nowhere(disk: Disk) -> None:
    os.mkfifo(disk.media / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(disk.media / "socket"))
    (disk.media / "loop").symlink_to("loop")
    (disk.media / "dangling").symlink_to("nothing")
    (disk.media / "out").symlink_to(disk.root)
    (disk.media / "secret.png").symlink_to(disk.root / "secret.png")
    (disk.media / "twice.png").symlink_to("secret.png")
    (disk.media / "null").symlink_to("/dev/null")
    (disk.media / "self").symlink_to("/proc/self")
    answers = {
        path: _told(disk.refusal(f"file://{path}"))
        for path in [
            # nowhere
            f"{disk.media}/nothing.png",
            f"{disk.root}/nothing.png",
            f"{disk.media}/a.png/x",
            f"{disk.media}/{'x' * 300}",
            f"{disk.media}/{'x/' * 3000}",
            f"{disk.media}/dangling",
            f"{disk.media}/loop",
            # outside
            f"{disk.root}/secret.png",
            f"{disk.root}/media-of-others/a.png",
            f"{disk.media}/../secret.png",
            f"{disk.media}/%2e%2e/secret.png",
            f"{disk.media}%2F..%2Fsecret.png",
            f"{disk.media}/pages/../../secret.png",
            f"{disk.media}/{'../' * 40}etc/passwd",
            "/etc/passwd",
            "//etc/passwd",
            "/C:/Windows/win.ini",
            # out by a link
            f"{disk.media}/out/secret.png",
            f"{disk.media}/out/media-of-others/a.png",
            f"{disk.media}/secret.png",
            f"{disk.media}/twice.png",
            # not a file
            str(disk.media),
            f"{disk.media}/",
            f"{disk.media}/pages",
            f"{disk.media}/.",
            f"{disk.media}/fifo",
            f"{disk.media}/socket",
            f"{disk.media}/null",
            "/",
            # what the kernel makes up
            "/dev/zero",
            "/dev/fd/0",
            "/proc/self/environ",
            "/proc/self/mem",
            f"/proc/self/root{disk.root}/secret.png",
            f"{disk.media}/self/environ",
            f"{disk.media}/self/cwd/pyproject.toml",
            # taken literally, of which there is none
            "/~/.ssh/id_ed25519",
            f"{disk.media}/%2561.png",
            f"{disk.media}/$HOME",
            f"{disk.media}\\..\\secret.png",
        ]
    }
    assert set(answers.values()) == {
        (
            InvalidImage,
            "image_file_not_found",
            "There is no such file in the folders that this server opens to clients.",
            PARAM,
        )
    }, answers


@pytest.mark.parametrize("name", ["nothing", "media-of-others", "secret.png", "link", "media-of-others/a.png"])
def test_the_way_to_a_file_tells_nothing_of_what_it_passes(disk: Disk, name: str) -> None:
    (disk.root / "link").symlink_to("/usr")
    up = "../" * (name.count("/") + 1)
    assert disk.read(f"file://{disk.root}/{name}/{up}media/a.png") == INSIDE


def test_an_open_file_cannot_be_had_by_its_descriptor(disk: Disk) -> None:
    with open(disk.root / "secret.png", "rb") as file:
        for folder in ("/proc/self/fd", f"/proc/{os.getpid()}/fd", "/dev/fd"):
            assert disk.refusal(f"file://{folder}/{file.fileno()}").code == "image_file_not_found"


def test_a_file_that_the_server_may_not_read_is_not_there(disk: Disk) -> None:
    (disk.media / "a.png").chmod(0)
    if os.access(disk.media / "a.png", os.R_OK):
        pytest.skip("root may read everything")
    assert disk.refusal(f"file://{disk.media}/a.png").code == "image_file_not_found"


@pytest.mark.parametrize(
    "url",
    [
        "file:a.png",
        "file:./a.png",
        "file:",
        "file://",
        "file://a.png",
        "file://example.com{media}/a.png",
        "file://user@localhost{media}/a.png",
        "file://localhost:80{media}/a.png",
        "file://[::1{media}/a.png",
        "file://{media}/a.png?x=1",
        "file://{media}/a.png#x",
        "file://{media}/a.png%00",
        "file://{media}/a.png\0",
        "file://{media}/%00/../a.png",
        "file://{media}/\ud800.png",
        "file://{media}/%ff.png",
        "file:\\\\{media}\\a.png",
    ],
    ids=ascii,
)
def test_what_is_no_file_url_is_malformed(disk: Disk, url: str) -> None:
    error = disk.refusal(url.replace("{media}", str(disk.media)))
    assert (error.code, "file:///path" in error.message) == ("invalid_image_url", True)


def test_a_link_that_changes_between_the_look_and_the_opening_leads_nowhere(disk: Disk) -> None:
    link, spare = disk.media / "link.png", disk.root / "spare"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for target in (disk.media / "a.png", disk.root / "secret.png"):
                spare.unlink(missing_ok=True)
                spare.symlink_to(target)
                spare.rename(link)

    swapper = threading.Thread(target=swap)
    local = Local(str(link), "image", PARAM)
    seen: list[bytes | str | None] = []
    swapper.start()
    try:
        for _ in range(3000):
            try:
                seen.append(disk.folders.read(local, LIMIT))
            except InvalidImage as error:
                seen.append(error.code)
    finally:
        stop.set()
        swapper.join()
    assert set(seen) <= {INSIDE, "image_file_not_found"}


# ---- Sizes and kinds --------------------------------------------------------------------------------


def test_the_limit_is_exact(disk: Disk) -> None:
    assert disk.read(f"file://{disk.media}/a.png", max_bytes=len(INSIDE)) == INSIDE
    assert disk.refusal(f"file://{disk.media}/a.png", max_bytes=len(INSIDE) - 1).code == "image_file_too_large"


def test_a_huge_file_is_refused(disk: Disk) -> None:
    with open(disk.media / "huge.png", "wb") as file:
        file.truncate(1 << 40)
    assert disk.refusal(f"file://{disk.media}/huge.png").code == "image_file_too_large"


def test_a_file_whose_size_the_kernel_does_not_tell_is_cut_off_at_the_limit(disk: Disk) -> None:
    disk.folders = Folders([Path("/proc/self")])
    status = f"file:///proc/{os.getpid()}/status"
    assert disk.read(status, max_bytes=100_000).startswith(b"Name:")
    assert disk.refusal(status, max_bytes=100).code == "image_file_too_large"


@pytest.mark.parametrize(
    ("kind", "error", "codes"),
    [
        ("image", InvalidImage, ("image_file_not_found", "image_file_too_large", "invalid_image_url")),
        ("video", InvalidVideo, ("video_not_found", "video_too_large", "invalid_video_url")),
        ("file", InvalidFile, ("file_not_found", "file_too_large", "invalid_file_url")),
    ],
)
def test_each_kind_has_its_own_error(
    disk: Disk, kind: MediaKind, error: type[BadRequest], codes: tuple[str, ...]
) -> None:
    there, nowhere = f"file://{disk.media}/a.png", f"file://{disk.media}/b.png"
    for folders, url, code in zip(
        (disk.folders, disk.folders, Folders([])), (nowhere, there, there), codes, strict=True
    ):
        disk.folders = folders
        with pytest.raises(error) as caught:
            disk.read(url, kind, max_bytes=1)
        assert (caught.value.code, caught.value.param) == (code, PARAM)


# ---- The operator -----------------------------------------------------------------------------------


def test_without_folders_no_file_is_opened_and_the_client_is_told_what_to_do(disk: Disk) -> None:
    disk.folders = Folders([])
    error = disk.refusal(f"file://{disk.media}/a.png")
    assert error.code == "invalid_image_url"
    assert "data:image/png;base64,..." in error.message


def test_there_are_folders_or_none() -> None:
    assert not Folders([])
    assert Folders([Path("/")])


@pytest.mark.parametrize("name", ["nowhere", "media/a.png"])
def test_what_is_no_folder_cannot_be_opened_to_clients(disk: Disk, name: str) -> None:
    with pytest.raises(ValueError, match="there is no folder .*" + name):
        Folders([disk.media, disk.root / name])
