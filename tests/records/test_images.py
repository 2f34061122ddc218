"""Images made fit for the API: untouched where they fit, smaller or converted where not, named where they are none."""

from __future__ import annotations

import json
import random
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from webapp.records import images
from webapp.records.faults import Fault
from webapp.records.images import GOOD_SIDE, MAX_BYTES, Image, fit_image
from webapp.records.reading import Problem, Record, read_records


def picture(kind: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: object) -> bytes:
    stream = BytesIO()
    Pillow.new(mode, size, "red" if mode == "RGB" else None).save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Pillow.Image:
    return Pillow.frombytes(mode, (width, height), random.Random(1).randbytes(width * height * len(mode)))


def fitted(content: bytes) -> Image:
    image = fit_image(content)
    assert isinstance(image, Image)
    with Pillow.open(BytesIO(image.content)) as shown:
        shown.load()
        assert shown.size == (image.width, image.height)
        assert shown.get_format_mimetype() == image.media_type
    assert image.sha256 == sha256(image.content).digest()
    assert len(image.content) <= MAX_BYTES
    return image


@pytest.mark.parametrize(
    ("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("GIF", "image/gif"), ("WEBP", "image/webp")]
)
def test_a_picture_within_the_limits_is_sent_as_it_is(kind: str, media_type: str) -> None:
    content = picture(kind)
    assert fitted(content) == Image(sha256(content).digest(), media_type, 40, 30, content)


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_a_format_the_api_does_not_take_becomes_png(kind: str) -> None:
    image = fitted(picture(kind))
    assert (image.media_type, image.width, image.height) == ("image/png", 40, 30)


@pytest.mark.parametrize(
    ("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("GIF", "image/png"), ("WEBP", "image/webp")]
)
def test_a_picture_of_too_many_pixels_a_side_is_scaled_down(kind: str, media_type: str) -> None:
    content = picture(kind, (8100, 100))
    image = fitted(content)
    assert (image.media_type, image.width, image.height) == (media_type, GOOD_SIDE, 32)
    assert fitted(content) == image


def test_a_photo_of_too_many_bytes_is_scaled_down() -> None:
    stream = BytesIO()
    noise(3000, 2000).save(stream, "JPEG", quality=100)
    assert len(stream.getvalue()) > MAX_BYTES
    image = fitted(stream.getvalue())
    assert (image.media_type, image.width) == ("image/jpeg", GOOD_SIDE)


def test_a_png_that_stays_too_large_becomes_jpeg_on_white() -> None:
    see_through = noise(2600, 2000, "RGBA")
    stream = BytesIO()
    see_through.save(stream, "PNG", compress_level=1)
    image = fitted(stream.getvalue())
    assert image.media_type == "image/jpeg"


def test_a_picture_encoded_anew_stands_upright() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turn a quarter to the right
    content = picture("JPEG", (8100, 90), exif=exif)
    image = fitted(content)
    assert image.height == GOOD_SIDE > image.width


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_mode_of_png_can_be_scaled_down(mode: str) -> None:
    assert fitted(picture("PNG", (8100, 100), mode)).width == GOOD_SIDE


def test_sixteen_bit_greys_keep_their_shades() -> None:
    wide = Pillow.new("I;16", (2, 1))
    wide.putpixel((1, 0), 65535)
    stream = BytesIO()
    wide.resize((8100, 10), Pillow.Resampling.NEAREST).save(stream, "PNG")
    with Pillow.open(BytesIO(fitted(stream.getvalue()).content)) as shown:
        assert (shown.getpixel((0, 0)), shown.getpixel((shown.width - 1, 0))) == (0, 255)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_truncated_file_is_no_image(kind: str) -> None:
    stream = BytesIO()
    noise(200, 150).save(stream, kind)
    for share in (0.3, 0.9):
        content = stream.getvalue()[: int(len(stream.getvalue()) * share)]
        found = fit_image(content)
        assert isinstance(found, Fault), kind
        assert "it is no image" in found.fault


def test_what_is_no_image_is_told_so() -> None:
    for content in (b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        found = fit_image(content)
        assert isinstance(found, Fault)
        assert found.fault.startswith("it is no image")


def test_a_picture_that_would_burst_memory_is_refused() -> None:
    found = fit_image(picture("PNG", (12_000, 12_000), "1"))
    assert isinstance(found, Fault)
    assert "pixels" in found.fault


def test_a_tiff_of_several_pages_is_refused_rather_than_cut() -> None:
    content = picture("TIFF", save_all=True, append_images=[Pillow.new("RGB", (40, 30))])
    found = fit_image(content)
    assert isinstance(found, Fault)
    assert "several pages" in found.fault


@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]), st.data())
@settings(deadline=None, max_examples=150)
def test_spoilt_bytes_are_a_picture_or_a_fault_and_never_raise(kind: str, draw: st.DataObject) -> None:
    content = bytearray(picture(kind))
    for _ in range(draw.draw(st.integers(1, 5))):
        content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    assert isinstance(fit_image(bytes(content)), Image | Fault)


def test_a_folder_of_images_becomes_records_with_their_shapes(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "in").mkdir(parents=True)
    (folder / "a 🙂.png").write_bytes(picture("JPEG"))
    (folder / "in" / "b.gif").write_bytes(picture("GIF"))
    (folder / "x.png").write_bytes(b"no image")
    (folder / "y.heic").write_bytes(b"x")
    (folder / "z.jpg").write_bytes(b"")
    found = list(read_records(folder))
    records = [f for f in found if isinstance(f, Record)]
    assert [(r.position, r.key, r.kind) for r in records] == [(0, "a 🙂.png", "image"), (1, "in/b.gif", "image")]
    assert json.loads(records[0].data) == {
        "key": "a 🙂.png",
        "file": "a 🙂.png",
        "width": 40,
        "height": 30,
        "media_type": "image/jpeg",
    }
    assert records[0].image == fitted(picture("JPEG"))
    assert [(p.where, p.fault) for p in found if isinstance(p, Problem)] == [
        ("photos/x.png", "it is no image: its content is none of PNG, JPEG, GIF, WebP, BMP, TIFF"),
        ("photos/y.heic", "a file with ending .heic among images"),
        ("photos/z.jpg", "it is empty"),
    ]


def test_a_picture_no_encoding_makes_small_enough_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    found = fit_image(picture("JPEG", (200, 200)))
    assert isinstance(found, Fault)
    assert "stays over" in found.fault
