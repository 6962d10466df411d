"""``fastnn predict`` of pictures: what a user has for a digit, and what only looks like one."""

import io
import os
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest

import fastnn

Image = pytest.importorskip("PIL.Image", reason="Pillow, the extra 'image', is not installed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that knows the digits, and the test sample it is surest of."""
    train_set, test_set = fastnn.load_dataset("digits")
    network = fastnn.Network([64, 30, 10])
    fastnn.train(network, train_set, epochs=30)
    path = tmp_path_factory.mktemp("model") / "digits.safetensors"
    network.save(path)
    outputs = network.forward(test_set.x)
    # Of those whose corners and most of whose border are dark, as in any picture of a digit.
    pictures = test_set.x.reshape(-1, 8, 8)
    border = np.concatenate(
        [pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]], axis=1
    )
    framed = (np.median(border, axis=1) == 0) & (outputs.argmax(axis=1) == test_set.labels)
    best = np.where(framed, outputs.max(axis=1), 0).argmax()
    return path, pictures[best], int(test_set.labels[best]), float(outputs[best].max())


@pytest.fixture
def predict(run, trained):
    def predict(*files):
        result = run("predict", trained[0], *files, "--json")
        assert (result.code, result.err) == (0, ""), result
        return [(row["class"], row["output"]) for row in result.json["predictions"]]

    return predict


def with_alpha(ink, alpha):
    """A picture of one colour that is seen where alpha is."""
    return Image.fromarray(np.dstack([np.full((*alpha.shape, 3), ink, np.uint8), alpha]))


def enlarged(grey, width=256, height=256):
    return Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC)


EXACT = {
    "light on dark": Image.fromarray,
    "dark on light": lambda grey: Image.fromarray(255 - grey),
    "colour": lambda grey: Image.fromarray(255 - grey).convert("RGB"),
    "palette": lambda grey: Image.fromarray(255 - grey).convert("P"),
    "16 bits": lambda grey: Image.fromarray(grey.astype(np.uint16) * 257),
    "16 bits, dark on light": lambda grey: Image.fromarray((255 - grey).astype(np.uint16) * 257),
    "dark on transparent": lambda grey: with_alpha(0, grey),
    "light on transparent": lambda grey: with_alpha(255, grey),
    "grey with alpha": lambda grey: Image.fromarray(255 - grey).convert("LA"),
}


@pytest.mark.parametrize("kind", EXACT)
def test_a_png_of_any_kind_is_the_sample(predict, trained, tmp_path, kind):
    _, grey, label, output = trained
    EXACT[kind](grey).save(tmp_path / "digit.png")
    assert predict("digit.png") == [(label, pytest.approx(output, abs=0.02))]


SIMILAR = {
    "large.png": lambda grey: enlarged(grey),
    "large.jpg": lambda grey: enlarged(255 - grey),
    "LARGE.JPEG": lambda grey: enlarged(grey),
    "wide.png": lambda grey: enlarged(grey, 256, 240),
    "tall.png": lambda grey: enlarged(255 - grey, 240, 256),
    "two-colours.png": lambda grey: Image.fromarray(grey).point(lambda v: 255 * (v > 127)),
}


@pytest.mark.parametrize("name", SIMILAR)
def test_a_picture_of_another_size_shows_the_same_digit(predict, trained, tmp_path, name):
    SIMILAR[name](trained[1]).save(tmp_path / name)
    ((label, output),) = predict(name)
    assert label == trained[2]
    assert output > 0.5


def test_a_picture_that_lies_on_its_side_is_turned(predict, trained, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = Image.fromarray(trained[1]).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "digit.png", exif=exif)
    assert predict("digit.png") == [(trained[2], pytest.approx(trained[3], abs=0.02))]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (8, 9)])
def test_any_size_gives_one_sample(predict, tmp_path, size):
    Image.new("L", size, 200).save(tmp_path / "blank.png")
    assert len(predict("blank.png")) == 1


def test_pictures_and_arrays_together(predict, trained, tmp_path):
    _, grey, label, output = trained
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", np.stack([grey, grey]))
    assert predict("a.png", "b.npy") == [(label, pytest.approx(output, rel=1e-5))] * 3


def png(width, height, rows):
    """The bytes of a grey PNG whose header says what it likes."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def jpeg_turned_with(number, kind):
    """A JPEG whose Exif asks to turn it, and has another tag, of a type that it must not have."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHIi", number, kind, 1, -1)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, "JPEG", exif=exif)
    return file.getvalue()


WHOLE = png(8, 8, bytes(72))
NO_PICTURES = {
    "empty": b"",
    "text": b"a seven",
    "truncated": WHOLE[:45],
    "bits flipped": WHOLE[:45] + b"\xff\xff\xff" + WHOLE[48:],
    "no pixels": png(0, 0, b""),
    "fewer rows than promised": png(8, 8, bytes(20)),
    "bomb": png(60_000, 60_000, bytes(100)),
    "smaller bomb": png(12_000, 12_000, bytes(100)),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_what_is_no_picture(refused, trained, tmp_path, kind):
    (tmp_path / "digit.png").write_bytes(NO_PICTURES[kind])
    result = refused(4, "digit.png", "predict", trained[0], "digit.png")
    assert "Ghostscript" not in result.err  # which Pillow would start


@pytest.mark.parametrize(("number", "kind"), [(0x100, 1), (0x11A, 2), (0x132, 11), (0x140, 4)])
def test_malformed_exif_is_survived(run, trained, tmp_path, number, kind):
    (tmp_path / "digit.jpg").write_bytes(jpeg_turned_with(number, kind))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow thinks of the Exif
        result = run("predict", trained[0], "digit.jpg")
    assert result.code in (0, 4)


def test_a_pipe_called_png_is_not_waited_for(run_process, trained, tmp_path):
    os.mkfifo(tmp_path / "digit.png")
    result = run_process("predict", trained[0], "digit.png")
    assert result.code == 4
    assert "digit.png" in result.err


@pytest.mark.parametrize("name", ["digit.gif", "digit.bmp", "digit"])
def test_a_picture_of_another_kind_is_told_what_kinds_there_are(refused, trained, tmp_path, name):
    Image.fromarray(trained[1]).save(tmp_path / name, format="GIF")
    refused(4, [name, ".png"], "predict", trained[0], name)


def test_a_network_whose_input_is_no_square(refused, tmp_path):
    fastnn.Network([12, 3]).save(tmp_path / "model")
    Image.new("L", (3, 4)).save(tmp_path / "digit.png")
    refused(4, "12 inputs", "predict", "model", "digit.png")


def test_without_pillow_it_says_how_to_get_it(refused, run, trained, tmp_path, monkeypatch):
    Image.fromarray(trained[1]).save(tmp_path / "digit.png")
    np.save(tmp_path / "digit.npy", trained[1])
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused(2, ["Pillow", "pip install"], "predict", trained[0], "digit.png")
    assert run("predict", trained[0], "digit.npy").code == 0
