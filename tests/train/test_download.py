"""Downloads, from a server on this machine: nothing here leaves it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import io
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kouling.train import download
from kouling.train.download import Archive, fetch, partition

NAME = "words"
RECORDING = np.random.default_rng(0).bytes(300_000)  # so that it does not compress


def packed(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` at /words.tar.gz, and can be told to misbehave."""

    daemon_threads = True
    content = packed({"./yes/1.wav": RECORDING, "./validation_list.txt": b"yes/1.wav\n"})
    stop_after: int | None = None  # bytes of the body, then the connection closes
    interrupt: Path | None = None  # Ctrl-C for the main thread, as soon as this file has grown
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []  # the Range of each request

    @property
    def archive(self) -> Archive:
        url = f"http://127.0.0.1:{self.server_address[1]}/words.tar.gz"
        return Archive(url, hashlib.sha256(self.content).hexdigest(), len(self.content))


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append(wanted)
        if self.path != "/words.tar.gz":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.stop_after])
        if self.server.interrupt:
            deadline = time.monotonic() + 20
            while not (self.server.interrupt.exists() and self.server.interrupt.stat().st_size):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            self.server.interrupt = None
            # The end of the transfer must not come before the signal. One that comes just before the client waits for
            # more does not wake it; another byte does.
            with contextlib.suppress(OSError):  # the client has gone
                for byte in body[self.server.stop_after :][:200]:
                    time.sleep(0.1)
                    self.wfile.write(bytes([byte]))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(download, "ARCHIVES", {NAME: server.archive})
        yield server
        server.shutdown()


def publish(server: Server, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    monkeypatch.setattr(download, "ARCHIVES", {NAME: dataclasses.replace(server.archive, **changes)})


def refusal(folder: Path) -> str:
    """The error of a `fetch`: one line, and no unpacked folder, not even under another name."""
    with pytest.raises(ValueError) as caught:
        fetch(NAME, folder, progress=False)
    assert "\n" not in str(caught.value)
    assert [path for path in folder.iterdir() if path.is_dir()] == []
    return str(caught.value)


@pytest.mark.parametrize("progress", [True, False])
def test_an_archive_is_downloaded_once_and_unpacked(
    server: Server, tmp_path: Path, progress: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        unpacked = fetch(NAME, tmp_path / "data", progress)
        assert unpacked == tmp_path / "data" / NAME
        assert (unpacked / "yes" / "1.wav").read_bytes() == RECORDING
    assert server.asked == [None]
    assert sorted(path.name for path in unpacked.parent.iterdir()) == [NAME, "words.tar.gz"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ranges", [True, False], ids=["server-resumes", "server-starts-over"])
def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.ranges, server.stop_after = ranges, 100_000
    assert f"ended after 100000 of {len(server.content)} bytes; try again" in refusal(tmp_path)
    server.stop_after = None
    assert (fetch(NAME, tmp_path, progress=False) / "yes" / "1.wav").read_bytes() == RECORDING
    assert server.asked == [None, "bytes=100000-"]


def test_ctrl_c_leaves_a_part_to_go_on_from(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "words.tar.gz.part"
    server.stop_after, server.interrupt = 100_000, part
    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == [part]
    so_far = part.stat().st_size
    server.stop_after = None
    assert (fetch(NAME, tmp_path, progress=False) / "yes" / "1.wav").read_bytes() == RECORDING
    assert server.asked == [None, f"bytes={so_far}-"]


def test_a_whole_part_needs_no_transfer_and_one_too_long_is_dropped(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "words.tar.gz.part"
    part.write_bytes(server.content)
    fetch(NAME, tmp_path, progress=False)
    assert server.asked == []
    (other := tmp_path / "other").mkdir()
    (other / part.name).write_bytes(server.content + b"more")
    fetch(NAME, other, progress=False)
    assert server.asked == [None]


def test_a_wrong_hash_is_refused_and_the_part_deleted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch, sha256="0" * 64)
    assert f"SHA-256 is {server.archive.sha256}, expected {'0' * 64}" in refusal(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_put_there_by_hand_is_used_if_right_and_kept_if_wrong(server: Server, tmp_path: Path) -> None:
    by_hand = tmp_path / "words.tar.gz"
    by_hand.write_bytes(b"not it")
    assert refusal(tmp_path).startswith(f"{by_hand}: SHA-256 is ")
    assert by_hand.read_bytes() == b"not it"
    by_hand.write_bytes(server.content)
    fetch(NAME, tmp_path, progress=False)
    assert server.asked == []


def test_failures_name_the_url_and_where_to_put_the_file_by_hand(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = server.archive.url.replace("words", "gone")
    publish(server, monkeypatch, url=missing)
    assert f"{missing} failed: HTTP 404 Not Found" in (message := refusal(tmp_path))
    assert f"put the file at {tmp_path / 'gone.tar.gz'} by hand" in message
    publish(server, monkeypatch, size_bytes=10**9)  # a login page in place of the file
    assert f"offers {len(server.content)} bytes, not 1000000000" in refusal(tmp_path)
    publish(server, monkeypatch, url="http://127.0.0.1:1/words.tar.gz")  # nothing listens there
    assert "Connection refused" in refusal(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../outside.txt", "yes/../../outside.txt", "/tmp/kouling-outside.txt", "link"])
def test_members_that_leave_the_folder_are_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server.content = packed({}, {name: "/etc"}) if name == "link" else packed({"yes/1.wav": b"1", name: b"outside"})
    publish(server, monkeypatch)
    assert repr(name) in refusal(tmp_path / "data")
    assert not (tmp_path / "outside.txt").exists() and not Path("/tmp/kouling-outside.txt").exists()


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'gsc'; allowed: speech-commands-v0.01, speech-commands-v0.02"):
        fetch("gsc", tmp_path)


def test_the_official_split_is_that_of_the_lists(tmp_path: Path) -> None:
    (tmp_path / "validation_list.txt").write_text("yes/a_nohash_0.wav\nno/a_nohash_1.wav\n")
    with pytest.raises(ValueError, match="testing_list.txt is missing"):
        partition(tmp_path)
    (tmp_path / "testing_list.txt").write_text("yes/b_nohash_0.wav\n")
    names = ["yes/a_nohash_0.wav", "no/a_nohash_1.wav", "yes/b_nohash_0.wav", "yes/c_nohash_0.wav"]
    assert list(map(partition(tmp_path), names)) == ["valid", "valid", "test", "train"]
