"""Images to a largest side, a format and a quality, by Pillow. Runs in a worker."""

from __future__ import annotations

import contextlib
import io
from typing import IO, Any

from batchfox.core.fit import ImageFit
from batchfox.core.pixels import MOST_PIXELS
from batchfox.fit.orders import RefusedError

# What is read; others (EPS starts a program, PDF an interpreter) are not even tried.
_READ = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF", "ICO")
_STAY = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp"}
_QUALITY = 85
_ORIENTATION = 0x0112


def fit_image(source: IO[bytes], target: IO[bytes], fit: ImageFit) -> str | None:
    """The MIME type of what was written, upright; None where the image fits as it is. Raises `RefusedError`, and what
    Pillow raises for what it cannot decode."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # ours is another limit
    _load_formats()
    with Image.open(source, formats=_READ) as image:
        if image.width * image.height > MOST_PIXELS:
            raise RefusedError(f"{image.width:,} x {image.height:,} pixels, more than {MOST_PIXELS // 10**6} million")
        is_large = fit.largest_side is not None and max(image.size) > fit.largest_side
        stays = image.format == "GIF" if fit.format == "auto" else False
        wanted = _STAY.get(image.format or "") if fit.format == "auto" else fit.format
        is_other = not stays and _STAY.get(image.format or "") != wanted
        if not stays and wanted is None:
            is_other = True
        if not is_large and not is_other and (fit.quality is None or stays or wanted == "png"):
            return None
        profile = image.info.get("icc_profile")
        upright = _prepare(image, fit.largest_side)
    wanted = wanted or ("png" if stays or _is_transparent(upright) else "jpeg")
    data = _encode(upright, wanted, fit.quality or _QUALITY, profile)
    if not is_large and not is_other and len(data) >= source.seek(0, io.SEEK_END):
        return None
    target.write(data)
    return f"image/{wanted}"


def _load_formats() -> None:
    from PIL import Image

    Image.init()
    with contextlib.suppress(ImportError):  # without it HEIC is refused as undecodable; the run looked before
        import pillow_heif

        pillow_heif.register_heif_opener()


def _prepare(image: Any, largest_side: int | None) -> Any:
    """Decoded, small enough, upright as its EXIF says, and in a mode that can be resized and written."""
    from PIL import Image, ImageOps

    if largest_side is not None:
        # A JPEG is decoded at a half, a quarter or an eighth of its size where that is still enough.
        image.draft(None, (largest_side * 2, largest_side * 2))
    turn = image.getexif().get(_ORIENTATION, 1)
    image.load()
    image = _in_plain_mode(image)
    if largest_side is not None:
        image.thumbnail((largest_side, largest_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    if turn in range(2, 9):
        image.getexif()[_ORIENTATION] = turn
        image = ImageOps.exif_transpose(image)
    return image


def _in_plain_mode(image: Any) -> Any:
    """RGB, RGBA, L or LA."""
    has_alpha = "transparency" in image.info or image.mode in ("PA", "La", "RGBa")
    if image.mode in ("RGB", "RGBA", "L", "LA") and not has_alpha:
        return image
    if image.mode.startswith("I"):  # 16 bits and more
        return image.point(lambda value: value * (1 / 256)).convert("L")
    if image.mode in ("1", "F"):
        return image.convert("L")
    return image.convert("RGBA" if has_alpha else "RGB")


def _is_transparent(image: Any) -> bool:
    return image.mode in ("RGBA", "LA") and image.getchannel("A").getextrema()[0] < 255


def _encode(image: Any, wanted: str, quality: int, profile: bytes | None) -> bytes:
    from PIL import Image

    if wanted == "jpeg" and image.mode in ("RGBA", "LA"):
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image.getchannel("A"))
        image = ground
    options: dict[str, Any] = {} if wanted == "png" else {"quality": quality}
    if profile and image.mode in ("RGB", "RGBA"):
        options["icc_profile"] = profile
    made = io.BytesIO()
    image.save(made, wanted.upper(), **options)
    return made.getvalue()
