"""Data sets of files, in the files' real formats: read right, fetched with a checksum, refused when damaged."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from PIL import Image

from vaebench.data import DATA, DamagedFileError, celeba, cifar100, data_directory, decoded, fetched, mnist
from vaebench.data.files import NotOriginalWarning, checksum, fingerprint

pytestmark = pytest.mark.filterwarnings("ignore::vaebench.data.files.NotOriginalWarning")  # these files are made here
MNIST_NAMES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
TAR = "cifar-100-binary.tar.gz"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def idx(images: np.ndarray, magic: int = 2051) -> bytes:
    return struct.pack(">4I", magic, *images.shape) + images.tobytes()


def records(images: np.ndarray) -> bytes:
    """Coarse label, fine label, then the planes of red, green and blue."""
    return b"".join(bytes([7, 42]) + image.tobytes() for image in images)


def tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_celeba(directory: Path, rng: np.random.Generator, splits: str) -> list[np.ndarray]:
    """One photograph per digit of `splits`; what Pillow decodes of each, (218, 178, 3)."""
    (directory / "img_align_celeba").mkdir(parents=True)
    lines, pixels = [], []
    for number, split in enumerate(splits, 1):
        name = f"{number:06d}.jpg"
        coarse = rng.integers(0, 256, (15, 12, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((178, 218), Image.Resampling.BICUBIC))
        (directory / "img_align_celeba" / name).write_bytes(jpeg(smooth))
        pixels.append(np.asarray(Image.open(directory / "img_align_celeba" / name)))
        lines.append(f"{name} {split}\n")
    (directory / "list_eval_partition.txt").write_text("".join(lines))
    return pixels


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Cut(Files):
    """Sends less than it announces."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"too little")


@contextlib.contextmanager
def served(directory: Path, handler: type[Files] = Files) -> Iterator[str]:
    """The directory on a loopback port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def remote(tmp_path, monkeypatch) -> Iterator[Path]:
    """A directory from which both data sets are fetched, whatever its files' checksums."""
    folder = tmp_path / "remote"
    folder.mkdir()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(folder) as url:

        def there(source):
            path = folder / source.name
            content = path.read_bytes() if path.exists() else b""
            return source._replace(url=f"{url}/{source.name}", sha256=hashlib.sha256(content).hexdigest())

        original = fetched.fetched
        monkeypatch.setattr(fetched, "fetched", lambda source, *rest: original(there(source), *rest))
        yield folder


# The directory


def test_the_directory_is_the_argument_then_the_variable_then_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEBENCH_DATA", str(tmp_path / "variable"))
    assert data_directory(tmp_path / "argument") == tmp_path / "argument"
    assert data_directory() == tmp_path / "variable"
    monkeypatch.delenv("VAEBENCH_DATA")
    assert data_directory() == platformdirs.user_cache_path("vaebench")


def test_a_tilde_is_the_home():
    assert data_directory("~/sets") == Path.home() / "sets"


@pytest.mark.parametrize("name", ["mnist", "cifar100", "celeba"])
def test_another_split_is_refused(name, tmp_path):
    with pytest.raises(
        ValueError, match=r"^split must be 'train', .*'test', got 'all'\.$|'train' or 'test', got 'all'"
    ):
        DATA[name]("all", tmp_path)


# MNIST


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_mnist_is_read_as_it_is_stored(split, packed, rng, tmp_path):
    images = rng.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    path = tmp_path / MNIST_NAMES[split]
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(idx(images)))
    else:
        path.write_bytes(idx(images))
    x = mnist(split, tmp_path)
    assert x.dtype == torch.uint8
    assert torch.equal(x, torch.from_numpy(images))


def test_mnist_is_found_through_the_variable(rng, tmp_path, monkeypatch):
    (tmp_path / MNIST_NAMES["train"]).write_bytes(idx(rng.integers(0, 256, (2, 28, 28), dtype=np.uint8)))
    monkeypatch.setenv("VAEBENCH_DATA", str(tmp_path))
    assert mnist().shape == (2, 28, 28)


IMAGES = np.zeros((5, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has 0 bytes, fewer than a header of 16"),
        (idx(IMAGES)[:15], "it has 15 bytes, fewer than a header of 16"),
        (idx(IMAGES)[:-1], "it announces 5 images, 3920 bytes, and holds 3919"),
        (idx(IMAGES) + b"\0", "it announces 5 images, 3920 bytes, and holds more"),
        (idx(IMAGES, magic=2049), "its magic number is 2049, not 2051"),
        (gzip.compress(idx(IMAGES), mtime=0), "its magic number is"),
        (idx(IMAGES[:, :, :27]), "it announces 5 images of 28 x 27"),
        (idx(IMAGES[:0]), "it announces 0 images"),
    ],
)
def test_damaged_idx_is_refused(content, message, tmp_path):
    path = tmp_path / MNIST_NAMES["train"]
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=message) as refusal:
        mnist(directory=tmp_path)
    assert str(refusal.value).startswith(f"{path} is damaged or another file: ")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-9],
        lambda content: content[:-8] + bytes([content[-8] ^ 1]) + content[-7:],
        lambda content: content[:40] + bytes(40) + content[80:],
        lambda _: b"<html>not found</html>",
    ],
    ids=["cut", "checksum", "zeroed", "html"],
)
def test_damaged_gz_is_refused(damage, rng, tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(gzip.compress(idx(rng.integers(0, 256, (5, 28, 28), dtype=np.uint8)))))
    with pytest.raises(DamagedFileError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        mnist(directory=tmp_path)


# CIFAR-100


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("packed", [False, True], ids=["extracted", "tar"])
def test_cifar100_is_read_as_it_is_stored(split, packed, rng, tmp_path):
    images = {name: rng.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8) for name in ("train", "test")}
    members = {f"cifar-100-binary/{name}.bin": records(array) for name, array in images.items()}
    if packed:
        (tmp_path / TAR).write_bytes(tar(members))
    else:
        (tmp_path / "cifar-100-binary").mkdir()
        for name, content in members.items():
            (tmp_path / name).write_bytes(content)
    x = cifar100(split, tmp_path)
    assert x.dtype == torch.uint8
    assert torch.equal(x, torch.from_numpy(images[split]))


def test_cifar100_keeps_no_labels_in_memory(tmp_path):
    (tmp_path / TAR).write_bytes(tar({"cifar-100-binary/train.bin": bytes(3074 * 2)}))
    assert cifar100(directory=tmp_path).untyped_storage().nbytes() == 2 * 3072


@pytest.mark.parametrize("length", [0, 3073, 3075, 5 * 3074 - 100])
@pytest.mark.parametrize("packed", [False, True], ids=["extracted", "tar"])
def test_a_cut_record_is_refused(length, packed, tmp_path):
    if packed:
        (tmp_path / TAR).write_bytes(tar({"cifar-100-binary/train.bin": bytes(length)}))
    else:
        (tmp_path / "cifar-100-binary").mkdir()
        (tmp_path / "cifar-100-binary" / "train.bin").write_bytes(bytes(length))
    message = f"cifar-100-binary/train.bin has {length} bytes, not records of 3074 each"
    with pytest.raises(DamagedFileError, match=message):
        cifar100(directory=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar({"cifar-100-binary/test.bin": bytes(3074)}), "there is no cifar-100-binary/train.bin in it"),
        (tar({"cifar-100-python/train": bytes(3074)}), "there is no cifar-100-binary/train.bin in it"),
        (tar({"cifar-100-binary/train.bin": np.random.default_rng(0).bytes(3 * 3074)})[:-2000], "end"),
        (b"<html>not found</html>", "Not a gzipped file"),
        (gzip.compress(b"no tar", mtime=0), "damaged"),
        (b"", "damaged"),
    ],
    ids=["test only", "python version", "cut", "html", "no tar", "empty"],
)
def test_a_damaged_tar_is_refused(content, message, tmp_path):
    (tmp_path / TAR).write_bytes(content)
    with pytest.raises(DamagedFileError, match=message) as refusal:
        cifar100(directory=tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path / TAR} is damaged or another file: ")
    assert "\n" not in str(refusal.value)


# Fetching


def test_what_is_missing_is_fetched_once_and_in_silence(remote, rng, tmp_path, capfd):
    images = rng.integers(0, 256, (3, 28, 28), dtype=np.uint8)
    packed = remote / "train-images-idx3-ubyte.gz"
    packed.write_bytes(gzip.compress(idx(images)))
    size, seen = packed.stat().st_size, []
    assert torch.equal(mnist("train", tmp_path / "new", lambda *now: seen.append(now)), torch.from_numpy(images))
    assert seen[-1] == (size, size) and all(done <= total == size for done, total in seen)
    packed.unlink()
    assert mnist("train", tmp_path / "new").shape == (3, 28, 28)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["train-images-idx3-ubyte.gz"]
    assert capfd.readouterr() == ("", "")


def test_cifar100_is_fetched(remote, tmp_path):
    (remote / TAR).write_bytes(tar({"cifar-100-binary/test.bin": bytes(3074 * 2)}))
    assert cifar100("test", tmp_path).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(("load", "name"), [(mnist, "train-images-idx3-ubyte.gz"), (cifar100, TAR)])
def test_what_the_server_lacks_is_asked_of_the_user(load, name, remote, tmp_path):
    with pytest.raises(FileNotFoundError) as refusal:
        load(directory=tmp_path)
    assert str(refusal.value).startswith(
        f"{name} is not in {tmp_path} and could not be fetched (HTTPError): put it there, from http://127.0.0.1:"
    )


def test_without_a_network_the_user_is_asked(tmp_path, monkeypatch):
    """The port was free a moment ago: nobody listens."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(tmp_path) as url:
        pass
    source = fetched.MNIST["test"]._replace(url=f"{url}/t10k-images-idx3-ubyte.gz")
    monkeypatch.setitem(fetched.MNIST, "test", source)
    with pytest.raises(FileNotFoundError) as refusal:
        mnist("test", tmp_path)
    assert str(refusal.value) == (
        f"t10k-images-idx3-ubyte.gz is not in {tmp_path} and could not be fetched (ConnectionError): "
        f"put it there, from {source.url}."
    )


def test_a_download_cut_short_is_refused_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(tmp_path, Cut) as url:
        monkeypatch.setattr(fetched, "CIFAR100", fetched.CIFAR100._replace(url=f"{url}/{TAR}"))
        with pytest.raises(FileNotFoundError, match=f"^{TAR} is not in .* could not be fetched"):
            cifar100(directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"could not be fetched \(NotADirectoryError\): put it there, from"):
        mnist(directory=tmp_path / "file" / "below")


def test_a_download_of_another_checksum_is_refused_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "remote").mkdir()
    (tmp_path / "remote" / TAR).write_bytes(tar({"cifar-100-binary/train.bin": bytes(3074)}))
    with served(tmp_path / "remote") as url:
        monkeypatch.setattr(fetched, "CIFAR100", fetched.CIFAR100._replace(url=f"{url}/{TAR}"))
        with pytest.raises(ValueError, match=f"sent is not {TAR}: its sha256 is .*, not 58a81ae19") as refusal:
            cifar100(directory=tmp_path / "new")
    assert "\n" not in str(refusal.value)
    assert list((tmp_path / "new").iterdir()) == []


def test_the_checksums_are_sha256():
    for source in (*fetched.MNIST.values(), fetched.CIFAR100):
        assert len(bytes.fromhex(source.sha256)) == 32
        assert source.url.endswith(f"/{source.name}") and source.url.startswith("https://")


# CelebA


@pytest.mark.parametrize(("split", "rows"), [("train", [0, 3]), ("valid", [1]), ("test", [2, 4])])
def test_celeba_is_cropped_and_resized(split, rows, rng, tmp_path):
    """Against torch's antialiased bilinear interpolation, to the rounding of either."""
    pixels = write_celeba(tmp_path, rng, "01202")
    x = celeba(split, tmp_path)
    assert (x.dtype, x.shape) == (torch.uint8, (len(rows), 3, 64, 64))
    whole = torch.from_numpy(np.stack([pixels[row] for row in rows])).permute(0, 3, 1, 2).double()
    crop = whole[:, :, 35:183, 15:163]
    expected = torch.nn.functional.interpolate(crop, (64, 64), mode="bilinear", antialias=True)
    assert float((x.double() - expected).abs().max()) < 1.01


def test_a_grey_photograph_has_three_equal_channels(rng, tmp_path):
    write_celeba(tmp_path, rng, "0")
    grey = rng.integers(0, 256, (218, 178), dtype=np.uint8)
    (tmp_path / "img_align_celeba" / "000001.jpg").write_bytes(jpeg(grey))
    x = celeba("train", tmp_path)
    assert torch.equal(x, x[:, :1].expand_as(x)) and int(x.max()) > int(x.min())


def test_celeba_is_decoded_once(rng, tmp_path):
    write_celeba(tmp_path, rng, "0010")
    first = celeba("train", tmp_path).clone()
    for photograph in (tmp_path / "img_align_celeba").iterdir():
        photograph.unlink()
    assert torch.equal(celeba("train", tmp_path), first)


def test_celeba_reports_progress_and_prints_nothing(rng, tmp_path, monkeypatch, capfd):
    write_celeba(tmp_path, rng, "0" * 7)
    monkeypatch.setattr(decoded, "BLOCK", 3)
    seen = []
    celeba("train", tmp_path, lambda *now: seen.append(now))
    assert seen == [(3, 7), (6, 7), (7, 7)]
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory map")
def test_celeba_is_mapped_and_not_copied(rng, tmp_path):
    write_celeba(tmp_path, rng, "0" * 50)
    x = celeba("train", tmp_path)
    (cache,) = tmp_path.glob("celeba-train-*.npy")
    spans = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if str(cache) in line]
    ends = [tuple(int(end, 16) for end in span.split("-")) for span in spans]
    first, last = x.data_ptr(), x.data_ptr() + x.nbytes
    assert any(start <= first and last <= stop for start, stop in ends)


def test_what_is_written_to_the_tensor_stays_out_of_the_cache(rng, tmp_path):
    write_celeba(tmp_path, rng, "00")
    x = celeba("train", tmp_path)
    original = x.clone()
    x.zero_()
    assert torch.equal(celeba("train", tmp_path), original)


def test_a_changed_partition_is_decoded_anew(rng, tmp_path):
    """Two photographs change places: every split keeps its size."""
    write_celeba(tmp_path, rng, "002")
    train, test = celeba("train", tmp_path), celeba("test", tmp_path)
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 2\n000003.jpg 0\n")
    assert torch.equal(celeba("train", tmp_path), torch.cat([train[:1], test]))
    assert torch.equal(celeba("test", tmp_path), train[1:])


@pytest.mark.parametrize(
    "damage",
    [
        lambda cache: cache.write_bytes(cache.read_bytes()[:-1]),
        lambda cache: cache.write_bytes(b""),
        lambda cache: cache.write_bytes(b"\0" * 12288 * 3),
        lambda cache: np.save(cache, np.zeros((3, 3, 64, 64), np.int8)),
        lambda cache: np.save(cache, np.zeros((2, 3, 64, 64), np.uint8)),
    ],
    ids=["cut", "empty", "no npy", "dtype", "shape"],
)
def test_a_cache_that_is_not_whole_is_never_used(damage, rng, tmp_path):
    write_celeba(tmp_path, rng, "000")
    expected = celeba("train", tmp_path).clone()
    (cache,) = tmp_path.glob("celeba-train-*.npy")
    damage(cache)
    assert torch.equal(celeba("train", tmp_path), expected)


def test_an_interrupted_decoding_leaves_nothing(rng, tmp_path, monkeypatch):
    write_celeba(tmp_path, rng, "0000")
    monkeypatch.setattr(decoded, "BLOCK", 1)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        celeba("train", tmp_path, interrupt)
    assert not [path for path in tmp_path.glob("celeba-*") if path.suffix != ".lock"]


def test_a_killed_decoding_is_begun_anew(rng, tmp_path):
    write_celeba(tmp_path, rng, "0000")
    code = (
        "import os; from vaebench.data import celeba, decoded; decoded.BLOCK = 1; "
        f"celeba('train', {str(tmp_path)!r}, lambda *_: os._exit(9))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 9
    assert {path.suffix for path in tmp_path.glob("celeba-*")} - {".lock"} == {".partial"}
    x = celeba("train", tmp_path)
    assert int(x.flatten(1).amax(1).min()) > 0
    assert not list(tmp_path.glob("*.partial"))


def test_missing_celeba_is_asked_of_the_user(tmp_path):
    message = f"CelebA is not in {tmp_path}: put the folder img_align_celeba .* and the file list_eval_partition.txt"
    with pytest.raises(FileNotFoundError, match=message):
        celeba("train", tmp_path)
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(FileNotFoundError, match=message):
        celeba("train", tmp_path)


def test_a_listed_photograph_that_is_missing_is_named(rng, tmp_path):
    write_celeba(tmp_path, rng, "0010")
    (tmp_path / "img_align_celeba" / "000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"^1 of 3 images .* the first is 000002\.jpg: put them there"):
        celeba("train", tmp_path)
    assert len(celeba("valid", tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("000001.jpg 0\n000002.jp", "line 2 is '000002.jp', not like"),
        ("000001.jpg 0\n\n000002.jpg 0\n", "line 2 is '', not like"),
        ("000001.jpg 3\n", "line 1 is '000001.jpg 3', not like"),
        ("000001.jpg,0\n", "line 1 is"),
        ("image_id partition\n000001.jpg 0\n", "line 1 is"),
        ("000001.jpg 1\n", "it lists nothing for split 'train', 0 in"),
        ("", "it lists nothing for split 'train', 0 in"),
        (b"\xff\xfe0\x000", "line 1 is"),
    ],
)
def test_a_malformed_partition_is_refused(text, message, rng, tmp_path):
    write_celeba(tmp_path, rng, "00")
    partition = tmp_path / "list_eval_partition.txt"
    partition.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DamagedFileError, match=message) as refusal:
        celeba("train", tmp_path)
    assert str(refusal.value).startswith(f"{partition} is damaged")


def test_a_partition_with_windows_line_ends_is_read(rng, tmp_path):
    write_celeba(tmp_path, rng, "00")
    (tmp_path / "list_eval_partition.txt").write_bytes(b"000001.jpg 0\r\n000002.jpg 0\r\n")
    assert len(celeba("train", tmp_path)) == 2


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (178, 218)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is no whole JPEG"),
        (b"no picture", "it is no whole JPEG"),
        (png(), "it is no whole JPEG"),
        (jpeg(np.random.default_rng(0).integers(0, 256, (218, 178, 3), np.uint8))[:9000], "it is no whole JPEG"),
        (jpeg(np.zeros((178, 218, 3), np.uint8)), "it has 218 x 178 pixels, not 178 x 218"),
    ],
    ids=["empty", "text", "png", "cut", "size"],
)
def test_a_damaged_photograph_is_named_and_leaves_no_cache(content, message, rng, tmp_path):
    write_celeba(tmp_path, rng, "000")
    photograph = tmp_path / "img_align_celeba" / "000002.jpg"
    photograph.write_bytes(content)
    with pytest.raises(DamagedFileError, match=message) as refusal:
        celeba("train", tmp_path)
    assert str(refusal.value).startswith(f"{photograph} is damaged")
    assert not list(tmp_path.glob("celeba-*.npy")) + list(tmp_path.glob("*.partial"))


def test_a_full_disk_is_noticed_beforehand(rng, tmp_path, monkeypatch):
    write_celeba(tmp_path, rng, "00")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2 * 12288 - 1}))
    with pytest.raises(OSError, match=r"needs 0\.00 GB and 0\.00 GB are free: make room"):
        celeba("train", tmp_path)


# Damage and mischief


def bomb(member: str, size: int) -> bytes:
    """An archive that announces so many zeros of a member, and has them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo(member)
        entry.size = size
        archive.addfile(entry, io.BytesIO(bytes(size)))
    return buffer.getvalue()


def test_an_archive_with_any_changed_byte_is_refused(rng, tmp_path):
    """Its checksum stands at its end, after the padding of the archive: it is read until there."""
    content = tar({"cifar-100-binary/train.bin": records(rng.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8))})
    for place in range(20, len(content), 97):
        (tmp_path / TAR).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DamagedFileError, match=TAR):
            cifar100(directory=tmp_path)


def test_an_archive_unpacks_to_no_more_than_any_original(tmp_path, monkeypatch):
    monkeypatch.setattr(fetched, "MOST_BYTES", 10**6)
    (tmp_path / TAR).write_bytes(bomb("cifar-100-binary/other.bin", 2 * 10**6))
    with pytest.raises(DamagedFileError, match="unpacks to more than 1,000,000 bytes"):
        cifar100(directory=tmp_path)


@pytest.mark.parametrize("target", ["cifar-100-binary/train.bin", "cifar-100-binary/loop.bin", "/etc/passwd"])
def test_a_link_in_an_archive_is_no_file(target, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, kind in (("train", tarfile.SYMTYPE), ("loop", tarfile.LNKTYPE)):
            entry = tarfile.TarInfo(f"cifar-100-binary/{name}.bin")
            entry.type, entry.linkname = kind, target
            archive.addfile(entry)
    (tmp_path / TAR).write_bytes(buffer.getvalue())
    with pytest.raises(DamagedFileError, match=r"there is no cifar-100-binary/train\.bin in it"):
        cifar100(directory=tmp_path)


def test_no_more_is_read_of_a_packed_file_than_its_header_announces(tmp_path, monkeypatch):
    """One byte beyond tells that there is more."""
    read = []

    class Counted(gzip.GzipFile):
        def read(self, size=-1):
            block = super().read(size)
            read.append(len(block))
            return block

    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES) + bytes(10**7)))
    monkeypatch.setattr(gzip, "open", Counted)
    with pytest.raises(DamagedFileError, match="announces 5 images, 3920 bytes, and holds more"):
        mnist(directory=tmp_path)
    assert sum(read) == 16 + 3920 + 1


def test_a_header_that_announces_more_than_any_original_is_refused(tmp_path):
    (tmp_path / MNIST_NAMES["train"]).write_bytes(struct.pack(">4I", 2051, 2**32 - 1, 28, 28))
    with pytest.raises(DamagedFileError, match="announces 4294967295 images"):
        mnist(directory=tmp_path)


def test_a_file_that_is_not_the_original_says_so(rng, tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(rng.integers(0, 256, (2, 28, 28), dtype=np.uint8))))
    with pytest.warns(NotOriginalWarning, match=f"{path} is not the original .*not 440fcabf"):
        mnist(directory=tmp_path)


def test_a_decoded_cache_with_any_changed_byte_is_decoded_anew(rng, tmp_path):
    write_celeba(tmp_path, rng, "00")
    right = celeba("train", tmp_path).clone()
    (cache,) = tmp_path.glob("celeba-train-*.npy")
    content = cache.read_bytes()
    for place in (0, 7, 9, 40, 127, 128, 5000, len(content) - 1):
        cache.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        assert torch.equal(celeba("train", tmp_path), right)
    (tmp_path / f"{cache.name}.sha256").unlink()
    assert torch.equal(celeba("train", tmp_path), right)


def test_a_whole_cache_is_summed_once_in_a_process(rng, tmp_path):
    write_celeba(tmp_path, rng, "00")
    celeba("train", tmp_path)
    before = checksum.cache_info()
    celeba("train", tmp_path)
    celeba("train", tmp_path)
    after = checksum.cache_info()
    assert after.misses - before.misses <= 1 and after.hits - before.hits >= 1


def test_blank_lines_at_the_end_of_a_partition_are_nothing(rng, tmp_path):
    write_celeba(tmp_path, rng, "002")
    path = tmp_path / "list_eval_partition.txt"
    path.write_text(path.read_text() + "\n \n")
    assert celeba("train", tmp_path).shape == (2, 3, 64, 64)


def test_a_directory_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "list_eval_partition.txt").mkdir()
    with pytest.raises(DamagedFileError, match=r"list_eval_partition\.txt .*it is no file"):
        celeba("train", tmp_path)
    (tmp_path / "cifar-100-binary" / "train.bin").mkdir(parents=True)
    with pytest.raises(DamagedFileError, match=r"train\.bin .*it is no file"):
        cifar100("train", tmp_path)


def test_a_fingerprint_is_of_every_byte_the_shape_and_the_dtype():
    rows = torch.arange(24, dtype=torch.float32).view(4, 6)
    other = rows.clone()
    other[3, 5] = torch.nextafter(other[3, 5], torch.tensor(99.0))
    found = {fingerprint(one) for one in (rows, other, rows.view(6, 4), rows.to(torch.int32), rows.double())}
    assert len(found) == 5
    assert fingerprint(rows.clone()) == fingerprint(rows)
