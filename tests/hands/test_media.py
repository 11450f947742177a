"""The door for media: what travels how, and no file outside `media.root`, against a real file system."""

from __future__ import annotations

import base64
import copy
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import GUARD_S, as_anybody

from batchfox.core.complaint import Complaint
from batchfox.core.mime import mime_of, sniff
from batchfox.core.rules import RuleBook, check
from batchfox.core.sections import Media, Rules
from batchfox.core.shape import Kind
from batchfox.errors import UserError
from batchfox.loading import Loader
from batchfox.media import MediaDoor
from batchfox.media_type import type_of
from batchfox.roots import MOST_FILE_BYTES

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(40))
MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(20)
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(20)
PDF = b"%PDF-1.7\n" + bytes(20)
BOOK = RuleBook.build(Rules())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a file in it and one in a folder, and secrets beside it."""
    root = tmp_path / "root"
    (root / "deep").mkdir(parents=True)
    (root / "a.png").write_bytes(PNG)
    (root / "deep" / "b c.png").write_bytes(PNG)
    (root / "empty.png").write_bytes(b"")
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "root-and-more").mkdir()
    (tmp_path / "root-and-more" / "secret.png").write_bytes(PNG)
    return root


class Door:
    """A request's media looked at, decided on and put in place; a medium to be uploaded gets a URL of ours."""

    def __init__(self, media: Media) -> None:
        self._loader = Loader(MediaDoor(media), media, BOOK)

    def send(self, request: dict[str, Any]) -> Any:
        load = self._loader.weigh(request)
        if isinstance(load, Complaint):
            return load
        urls = {parcel.place: f"https://uploads.example/{parcel.size}{parcel.suffix}" for parcel in load.to_upload}
        body, complaints = self._loader.make(load, urls)
        return (json.loads(body), load.ways) if body else complaints[0]


def door(root: Path, mode: Any = "auto") -> Door:
    return Door(Media(mode=mode, root=str(root)))


def image(value: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": "p", "image_urls": [value]}


def inline(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def send(root: Path, request: dict[str, Any], mode: Any = "auto") -> Any:
    before = copy.deepcopy(request)
    sent = door(root, mode).send(request)
    assert request == before
    return sent


def test_every_medium_travels_its_way_in_order(root: Path) -> None:
    (root / "v.mp4").write_bytes(MP4)
    (root / "d.pdf").write_bytes(PDF)
    given = inline("image/gif", b"GIF89a")
    request = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "a.png"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a.png"},
                    {"type": "image_url", "image_url": {"url": "https://e.com/a.png", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}},
                    {"type": "image_url", "image_url": "deep/b c.png"},
                    {"type": "image_url", "image_url": {"url": given}},
                    {"type": "video_url", "video_url": {"url": "file:v.mp4"}},
                    {"type": "file_url", "file_url": {"url": "d.pdf"}},
                ],
            },
        ],
    }
    sent, ways = send(root, request)
    assert ways == ["url", "inline", "inline", "inline", "inline", "inline"]
    content = sent["messages"][1]["content"]
    assert content[0] == {"type": "text", "text": "a.png"}
    assert [block.get("image_url") for block in content[1:5]] == [
        {"url": "https://e.com/a.png", "detail": "low"},
        {"url": inline("image/png", PNG), "detail": "low"},
        inline("image/png", PNG),
        {"url": given},
    ]
    assert content[5]["video_url"] == {"url": inline("video/mp4", MP4)}
    assert content[6]["file_url"] == {"url": inline("application/pdf", PDF)}
    assert check(sent, BOOK, final=True) == []


def test_a_request_without_local_media_is_the_same_object(root: Path) -> None:
    request = {"prompt": "p", "video_urls": ["https://youtu.be/x", "HTTPS://e.com/a.mp4"]}
    sent, ways = send(root, request)
    assert sent is not None
    assert ways == ["url", "url"]
    assert door(root).send(request) == (request, ["url", "url"])


def test_bytes_travel_inline_as_what_they_are(root: Path) -> None:
    for data in (PNG, bytearray(PNG)):
        sent, ways = send(root, image(data))
        assert (sent["image_urls"], ways) == ([inline("image/png", PNG)], ["inline"])
    sent, _ = send(root, {"audio_url": WAV})
    assert sent["audio_url"] == inline("audio/wav", WAV)


@pytest.mark.parametrize(
    "path",
    [
        "a.png",
        "./a.png",
        "deep/../a.png",
        "deep//b c.png",
        "file:a.png",
        "file:deep/b%20c.png",
        "{root}/a.png",
        "file://{root}/a.png",
        "FILE://localhost{root}/deep/b%20c.png",
        "link_inside.png",
        "folder_inside/b c.png",
    ],
)
def test_a_path_that_ends_below_the_root_is_read(root: Path, path: str) -> None:
    (root / "link_inside.png").symlink_to(root / "deep" / "b c.png")
    (root / "folder_inside").symlink_to("deep")
    sent, _ = send(root, image(path.format(root=root)))
    assert sent["image_urls"] == [inline("image/png", PNG)]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("../secret.png", "outside"),
        ("deep/../../secret.png", "outside"),
        ("../root-and-more/secret.png", "outside"),
        ("{root}/../secret.png", "outside"),
        ("{root}-and-more/secret.png", "outside"),
        ("/etc/passwd", "outside"),
        ("file:///etc/passwd", "outside"),
        ("file:../secret.png", "outside"),
        ("file:%2e%2e/secret.png", "outside"),
        ("file://elsewhere/a.png", "another host"),
        ("file://[/a.png", "file://["),
        ("link_out.png", "outside"),
        ("folder_out/secret.png", "outside"),
        ("chain.png", "outside"),
        ("a.png\0.jpg", "NUL"),
        ("file:a.png%00", "NUL"),
        ("nowhere.png", "No such file"),
        ("a.png/x", "Not a directory"),
        ("loop.png", "cannot be read"),
        ("x" * 5000, "File name too long"),
        ("half\ud83d.png", "cannot be read"),
        ("deep", "Is a directory"),
        (".", "Is a directory"),
        ("", "Is a directory"),
        ("pipe.png", "no regular file"),
        ("socket.png", "cannot be read"),
        ("~/a.png", "No such file"),
        ("empty.png", "empty"),
        ("https:/a.png", "No such file"),
        (5, "found 5"),
        (None, "found nothing"),
        (b"", "empty"),
        (b"no image", "nothing known"),
    ],
)
def test_what_cannot_pass_is_a_complaint_and_never_hangs(root: Path, path: Any, found: str) -> None:
    (root / "link_out.png").symlink_to(root.parent / "secret.png")
    (root / "folder_out").symlink_to(root.parent)
    (root / "chain.png").symlink_to("link_out.png")
    (root / "loop.png").symlink_to("loop.png")
    os.mkfifo(root / "pipe.png")
    bind_socket(root / "socket.png")
    value = path.format(root=root) if isinstance(path, str) else path
    complaint = send(root, image(value))
    assert isinstance(complaint, Complaint), complaint
    assert (complaint.rule, complaint.field) == ("media", "image_urls[0]")
    assert found in complaint.message
    complaint.message.encode()


def bind_socket(path: Path) -> None:
    """A socket's file; its name may be longer than a socket's address, so it is bound from its folder."""
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(before)


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    complaint = send(tmp_path / "nowhere", image("a.png"))
    assert isinstance(complaint, Complaint)
    assert "nowhere" in complaint.message


SEND = """
import sys
from batchfox.core.sections import Media
from batchfox.media import MediaDoor
print(MediaDoor(Media(root=sys.argv[1])).look({"model": "m", "prompt": "p", "image_urls": [sys.argv[2]]}))
"""


HOARD = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
handles = []
try:
    while True:
        handles.append(os.dup(0))
except OSError:
    pass
"""


def test_an_unreadable_file_says_so(root: Path) -> None:
    (root / "a.png").chmod(0)
    child = subprocess.run(
        as_anybody("-c", SEND, root, "a.png"), capture_output=True, text=True, timeout=GUARD_S, check=True
    )
    assert child.stdout.startswith("Complaint(")
    assert "Permission denied" in child.stdout
    assert str(root) in child.stdout


def test_a_machine_without_a_file_descriptor_left_is_not_the_rows_fault(root: Path) -> None:
    before, send = SEND.rsplit("print", 1)
    code = f"{before}{HOARD}print{send}"
    command: list[str | Path] = [sys.executable, "-c", code, root, "a.png"]
    child = subprocess.run(
        command, capture_output=True, text=True, timeout=GUARD_S, stdin=subprocess.DEVNULL, check=False
    )
    assert "MachineError" in child.stderr
    assert "Too many open files; raise the limit" in child.stderr


def test_a_root_that_is_a_link_is_resolved_once(root: Path) -> None:
    (root.parent / "alias").symlink_to(root)
    sent, _ = send(root.parent / "alias", image("a.png"))
    assert sent["image_urls"] == [inline("image/png", PNG)]


def test_the_whole_file_system_may_be_the_root(root: Path) -> None:
    sent, _ = send(Path("/"), image(str(root / "a.png")))
    assert sent["image_urls"] == [inline("image/png", PNG)]


def test_a_file_may_be_as_large_as_the_limit(root: Path) -> None:
    with (root / "large.pdf").open("wb") as file:
        file.write(PDF)
        file.truncate(MOST_FILE_BYTES + 1)
    complaint = send(root, {"messages": [{"content": [{"type": "file_url", "file_url": {"url": "large.pdf"}}]}]})
    assert isinstance(complaint, Complaint)
    assert "100.0 MB" in complaint.found
    complaint = send(root, image(bytes(MOST_FILE_BYTES + 1)))
    assert isinstance(complaint, Complaint)


def test_an_image_that_would_unpack_to_gigabytes_is_refused(root: Path) -> None:
    bomb = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + (50_000).to_bytes(4, "big") * 2 + bytes(50)
    (root / "bomb.png").write_bytes(bomb)
    for value in ("bomb.png", bomb):
        complaint = send(root, image(value))
        assert isinstance(complaint, Complaint)
        assert "50,000 x 50,000 pixels" in complaint.found


def test_a_link_put_there_after_the_check_leads_nowhere(root: Path) -> None:
    """Two threads: one swaps a folder for a link that leads out, the other reads. It reads the root's or complains."""
    inside, outside = root / "swap", root.parent / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "x.png").write_bytes(PNG)
    (outside / "x.png").write_bytes(PNG + b"secret")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            inside.rename(root / "away")
            inside.symlink_to(outside)
            inside.unlink()
            (root / "away").rename(inside)

    with ThreadPoolExecutor(1) as pool:
        swapping = pool.submit(swap)
        opened = door(root)
        results = [opened.send(image("swap/x.png")) for _ in range(1500)]
        stop.set()
        swapping.result()
    sent = [result[0]["image_urls"] for result in results if not isinstance(result, Complaint)]
    assert all(urls == [inline("image/png", PNG)] for urls in sent)


def test_no_file_descriptor_is_left_open(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    before = os.dup(0)
    os.close(before)
    opened = door(root)
    for path in ("a.png", "deep/b c.png", "nowhere/x.png", "deep/x.png", "pipe.png", "deep", "../secret.png"):
        opened.send(image(path))
    after = os.dup(0)
    os.close(after)
    assert after == before


def test_threads_may_share_a_door(root: Path) -> None:
    opened = door(root)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(opened.send, [image("a.png")] * 100))
    assert all(not isinstance(result, Complaint) and result[1] == ["inline"] for result in results)


@pytest.mark.parametrize("value", ["a.png", "file:a.png", PNG])
def test_mode_url_sends_nothing_local(root: Path, value: Any) -> None:
    complaint = send(root, image(value), mode="url")
    assert isinstance(complaint, Complaint)
    assert 'media.mode = "url"' in complaint.allowed
    _, ways = send(root, image("https://e.com/a.png"), mode="url")
    assert ways == ["url"]
    assert send(root, image(inline("image/png", PNG)), mode="url")[1] == ["inline"]


def test_mode_inline_leaves_remote_media_to_the_api(root: Path) -> None:
    assert send(root, image("https://e.com/a.png"), mode="inline") == (image("https://e.com/a.png"), ["url"])


def test_mode_upload_uploads_all_that_is_here_and_leaves_urls(root: Path) -> None:
    given = inline("image/gif", b"GIF89a")
    for value, url in ((PNG, "48.png"), ("a.png", "48.png"), ("file:a.png", "48.png"), (given, "6.gif")):
        sent, ways = send(root, image(value), mode="upload")
        assert (sent["image_urls"], ways) == ([f"https://uploads.example/{url}"], ["upload"])
    assert send(root, image("https://e.com/a.png"), mode="upload")[1] == ["url"]


def test_auto_uploads_what_is_large(root: Path) -> None:
    with (root / "large.png").open("wb") as file:
        file.write(PNG)
        file.truncate(4_000_001)
    with (root / "small.png").open("wb") as file:
        file.write(PNG)
        file.truncate(4_000_000)
    request = {"model": "m", "prompt": "p", "image_urls": ["large.png", "small.png", PNG + bytes(4_000_000)]}
    _, ways = send(root, request)
    assert ways == ["upload", "inline", "upload"]


def test_a_file_that_changes_while_it_is_read_is_not_sent(root: Path) -> None:
    loader = Loader(MediaDoor(Media(root=str(root))), Media(root=str(root)), BOOK)
    load = loader.weigh(image("a.png"))
    assert not isinstance(load, Complaint)
    (root / "a.png").write_bytes(PNG + b"more")
    body, complaints = loader.make(load, {})
    assert body == b""
    assert [(found.rule, found.field) for found in complaints] == [("media", "image_urls[0]")]
    assert "changed while it was read" in complaints[0].found


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("audio/x-wav", "audio/wav"),
        ("audio/mp3", "audio/mpeg"),
        ("AUDIO/WAVE", "audio/wav"),
        ("audio/ogg", "audio/ogg"),
    ],
)
def test_a_data_uri_carries_the_type_that_models_take(root: Path, given: str, sent: str) -> None:
    found, ways = send(root, {"model": "m", "audio_url": inline(given, WAV)})
    assert (found["audio_url"], ways) == (inline(sent, WAV), ["inline"])


def test_several_roots_are_tried_in_order(root: Path) -> None:
    other = root.parent / "other"
    other.mkdir()
    (other / "b.gif").write_bytes(b"GIF89a\x01\x00\x01\x00other")
    (other / "a.png").write_bytes(b"GIF89a\x01\x00\x01\x00hidden")
    both = Door(Media(root=[str(root), str(other)]))
    for path, found in (
        ("a.png", inline("image/png", PNG)),
        ("b.gif", inline("image/gif", b"GIF89a\x01\x00\x01\x00other")),
    ):
        assert both.send(image(path))[0]["image_urls"] == [found]
    assert both.send(image(str(other / "b.gif")))[1] == ["inline"]
    for path, said in (("../secret.png", "outside"), ("c.png", "No such file")):
        assert said in both.send(image(path)).found


# Object stores.


@pytest.fixture
def store() -> Any:
    """Objects in fsspec's store in memory."""
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    files.pipe("/photos/mine/a.png", PNG)
    files.pipe("/photos/theirs/a.png", PNG + b"secret")
    yield files
    files.rm("/photos", recursive=True)


def test_an_object_below_a_listed_prefix_is_sent(store: Any, root: Path) -> None:
    opened = Door(Media(root=[str(root), "memory://photos/mine"]))
    sent, ways = opened.send(image("memory://photos/mine/a.png"))
    assert (sent["image_urls"], ways) == ([inline("image/png", PNG)], ["inline"])
    assert opened.send(image("a.png"))[1] == ["inline"]
    only = Door(Media(root="memory://photos/mine", mode="upload"))
    assert only.send(image("memory://photos/mine/a.png"))[1] == ["upload"]
    assert "names no local folder" in only.send(image("a.png")).message


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("memory://photos/theirs/a.png", "outside"),
        ("memory://photos/mine-not/a.png", "outside"),
        ("memory://photos/mine/../theirs/a.png", "steps or signs"),
        ("memory://photos/mine//a.png", "steps or signs"),
        ("memory://photos/mine/./a.png", "steps or signs"),
        ("memory://photos/mine/a.png?x=1", "steps or signs"),
        ("memory://photos/mine/*.png", "steps or signs"),
        ("simplecache::memory://photos/mine/a.png", "chain"),
        ("memory://photos/mine/a.png::memory://photos/theirs/a.png", "chain"),
        ("s3://photos/mine/a.png", "outside"),
        ("memory://photos/mine/none.png", "cannot be read"),
        ("memory://photos/mine", "outside"),
    ],
)
def test_no_other_object_is_opened(store: Any, path: str, found: str) -> None:
    sent = Door(Media(root="memory://photos/mine")).send(image(path))
    assert isinstance(sent, Complaint), sent
    assert found in sent.found


def test_a_store_whose_package_is_missing_is_told_at_the_start() -> None:
    with pytest.raises(
        UserError, match=r"media\.root: oci://b/p cannot be read: .*pip install 'batchfox\[stores\]' ocifs"
    ):
        MediaDoor(Media(root="oci://b/p"))


@pytest.mark.parametrize(
    ("head", "mime"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (PNG, "image/png"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"\0\0\0\x18ftypheic", "image/heic"),
        (b"\0\0\0\x18ftypmif1", "image/heic"),
        (b"\0\0\0\x18ftypisom", "video/mp4"),
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
        (b"\0\0\0\x14ftypqt  ", "video/quicktime"),
        (b"\0\0\0\x18ftypM4A ", "audio/mp4"),
        (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", "video/webm"),
        (b"\x1a\x45\xdf\xa3\x9fB\x82\x88matroska", "video/x-matroska"),
        (b"\0\0\x01\xba", "video/mpeg"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"\xff\xf1\x50", "audio/aac"),
        (WAV, "audio/wav"),
        (b"fLaC", "audio/flac"),
        (b"OggS", "audio/ogg"),
        (b"FORM\0\0\0\0AIFFCOMM", "audio/aiff"),
        (PDF, "application/pdf"),
        (b"PK\x03\x04", "application/zip"),
        (b"<html>", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_the_bytes_tell_the_type(head: bytes, mime: str | None) -> None:
    assert sniff(head) == mime


DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.mark.parametrize(
    ("head", "suffix", "kind", "mime"),
    [
        (PNG, ".jpg", "image", "image/png"),
        (PNG, "", "image", "image/png"),
        (b"<html>", ".png", "image", None),
        (PDF, ".png", "image", None),
        (MP4, ".mp4", "image", None),
        (b"<svg/>", ".svg", "image", "image/svg+xml"),
        (MP4, ".m4a", "audio", "audio/mp4"),
        (MP4, ".mp4", "video", "video/mp4"),
        (b"OggS", ".ogv", "video", "video/ogg"),
        (b"\x00\x00\x00", ".mp3", "audio", "audio/mpeg"),
        (b"\x00\x00\x00", ".wav", "audio", None),
        (PNG, ".wav", "audio", None),
        (b"PK\x03\x04", ".DOCX", "file", DOCX),
        (b"PK\x03\x04", ".bin", "file", "application/zip"),
        (b"hello", ".txt", "file", "text/plain"),
        (b"hello", "", "file", "application/octet-stream"),
        (PNG, ".txt", "file", "image/png"),
    ],
)
def test_the_bytes_win_over_the_name(head: bytes, suffix: str, kind: Kind, mime: str | None) -> None:
    assert mime_of(head, suffix, kind) == mime


@pytest.mark.parametrize(
    ("head", "kind", "mime"),
    [
        (b"8BPS\x00\x01" + bytes(20), "image", "image/vnd.adobe.photoshop"),
        (b"FLV\x01" + bytes(20), "video", "video/x-flv"),
        (b"FLV\x01" + bytes(20), "image", None),
        (b"hello world", "image", None),
        (b"hello world", "file", "text/plain"),
        (PNG, "image", "image/png"),
    ],
)
def test_what_the_short_table_does_not_know_a_longer_one_tells(head: bytes, kind: Kind, mime: str | None) -> None:
    assert type_of(head, "x.txt", kind) == mime
