"""Pictures made fit for the API: decoded to the end, within its limits, in a format it takes.
Called by the reading of records for each image file; the same bytes in give the same bytes out.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from webapp.records.faults import Fault

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".gif", ".webp", ".bmp", ".tif", ".tiff"})
# The API's: 10 MB of base64 an image, 8000 pixels a side; it looks at no more than 2576 of them.
MAX_BYTES = 7_500_000
MAX_SIDE = 8000
GOOD_SIDE = 2576
# What is read of a file at all; a larger one is no picture anybody meant to send.
MAX_FILE_BYTES = 256 * 1024 * 1024

# Several JPEGs in one file (panoramas, stereo cameras) are MPO to Pillow; any reader of JPEG takes the first.
_MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "GIF": "image/gif",
    "WEBP": "image/webp",
}
_READABLE = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")

# Pillow only warns from one to two times Pillow.MAX_IMAGE_PIXELS, and refuses beyond. A picture of that size would
# take more memory than a worker has, so the warning is made an error, as Pillow's documentation advises.
warnings.simplefilter("error", Pillow.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class Image:
    """A picture as it will be sent.

    :param content: the file's own bytes wherever the API takes them, else a re-encoded picture.
    :param width: pixels of `content`, like `height`.
    """

    sha256: bytes
    media_type: str
    width: int
    height: int
    content: bytes


def fit_image(content: bytes) -> Image | Fault:
    """The picture in a file's bytes, scaled down once if the API would not take it; or why it is none."""
    try:
        with Pillow.open(BytesIO(content), formats=_READABLE) as picture:
            return _fit(picture, content)
    except (Pillow.DecompressionBombWarning, Pillow.DecompressionBombError):
        fault = f"the image has more than {Pillow.MAX_IMAGE_PIXELS:,} pixels"
        return Fault(fault, "scale it down to 8000 pixels a side or less")
    except UnidentifiedImageError:
        return Fault("it is no image: its content is none of PNG, JPEG, GIF, WebP, BMP, TIFF", _REPLACE)
    except Exception as error:  # noqa: BLE001 - decoders fed with rubbish raise whatever they trip over
        return Fault(f"it is no image that can be read to its end ({error})", _REPLACE)


_REPLACE = "replace it with a whole PNG, JPEG, GIF or WebP file, or remove it"


def _fit(picture: Pillow.Image, content: bytes) -> Image | Fault:
    width, height = picture.size
    media_type = _MEDIA_TYPES.get(picture.format or "")
    if picture.format == "TIFF" and getattr(picture, "n_frames", 1) > 1:
        return Fault("the TIFF file has several pages, one image can be sent", "save each page as a file of its own")
    if media_type is None or len(content) > MAX_BYTES or max(width, height) > MAX_SIDE:
        return _encoded_anew(picture)
    # A JPEG is read to its end at any scale; the smallest spares the memory of its pixels.
    picture.draft(None, (1, 1))
    picture.load()
    return Image(sha256(content).digest(), media_type, width, height, content)


def _encoded_anew(picture: Pillow.Image) -> Image | Fault:
    """A foreign format as PNG at full size if that will do, else scaled down, else scaled down as JPEG."""
    kind = picture.format if picture.format in ("JPEG", "WEBP") else "PNG"
    kind = "JPEG" if picture.format == "MPO" else kind
    full_size_may_do = picture.format not in _MEDIA_TYPES and max(picture.size) <= MAX_SIDE
    picture.draft(None, (GOOD_SIDE, GOOD_SIDE))
    upright = _plain(ImageOps.exif_transpose(picture))
    if full_size_may_do:
        image = _encoded(upright, kind)
        if len(image.content) <= MAX_BYTES:
            return image
    upright.thumbnail((GOOD_SIDE, GOOD_SIDE), Pillow.Resampling.LANCZOS)
    for attempt in (kind, "JPEG"):
        image = _encoded(upright, attempt)
        if len(image.content) <= MAX_BYTES:
            return image
    return Fault(f"the image stays over {MAX_BYTES:,} bytes however it is saved", "scale it down")


def _plain(picture: Pillow.Image) -> Pillow.Image:
    """The picture in a mode that can be scaled and saved: grey or colours, of 8 bits, perhaps with transparency."""
    if picture.mode in ("L", "LA", "RGB", "RGBA"):
        return picture
    if picture.mode.startswith(("I", "F")):
        # 16 bits and more: Pillow's conversion would clip all above 255 to white.
        low, high = picture.getextrema()
        span = (float(high) - float(low)) or 1.0  # type: ignore[arg-type]
        wide = picture.convert("F")
        return wide.point(lambda value: value * (255.0 / span) - float(low) * 255.0 / span).convert("L")  # type: ignore[arg-type]
    if picture.mode == "1":
        return picture.convert("L")
    see_through = picture.mode == "PA" or "transparency" in picture.info
    return picture.convert("RGBA" if see_through else "RGB")


def _encoded(picture: Pillow.Image, kind: str) -> Image:
    stream = BytesIO()
    if kind == "JPEG":
        _on_white(picture).save(stream, "JPEG", quality=88)
    elif kind == "WEBP":
        picture.save(stream, "WEBP", quality=88, method=4)
    else:
        picture.save(stream, kind)
    content = stream.getvalue()
    return Image(sha256(content).digest(), _MEDIA_TYPES[kind], picture.width, picture.height, content)


def _on_white(picture: Pillow.Image) -> Pillow.Image:
    """JPEG knows no transparency; paper is white."""
    if picture.mode not in ("LA", "RGBA"):
        return picture
    paper = Pillow.new("RGBA", picture.size, "white")
    return Pillow.alpha_composite(paper, picture.convert("RGBA")).convert("RGB")
