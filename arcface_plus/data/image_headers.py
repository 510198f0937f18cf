"""What the header of an encoded image says, read without decoding: format, size, memory to decode.

OpenCV allocates what a header claims before it looks at the pixels, so everything here is settled
first: the pixels must be few enough, and the file must be long enough to hold them.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache

MAX_PIXELS = 2**26
MAX_SIDE = 2**15
# A decoder that meets a colour at a time holds all coefficients: three times the decoded image.
MAX_BUFFERED_PIXELS = 2**24
# Of one encoded image. Uncompressed, 16-bit and with an opacity, MAX_PIXELS take as many.
MAX_BYTES = 2**29

_FIRST_BYTES = re.compile(
    rb"(?P<jpeg>\xff\xd8\xff)|(?P<png>\x89PNG\r\n\x1a\n)|(?P<bmp>BM)|(?P<pnm>P[1-6])"
)
_JPEG_END = b"\xff\xd9"
_COLOUR_SCAN = b"\xff\xda\x00\x0c\x03"  # how the only scan of a usual JPEG begins
# A comment ends where OpenCV ends it, at either end of a line: else both read different sizes.
_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM_HEAD = re.compile(rb"P([1-6])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s(?:" + _GAP + rb")?(\d*)")
_MOST_KEPT = 4096
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEFLATE_RATIO = 1032  # the most that deflate can compress


def image_format(data: bytes) -> str:
    """Return "jpeg", "png", "bmp" or "pnm" by the first bytes; raise ValueError for others."""
    if (match := _FIRST_BYTES.match(data)) and match.lastgroup:
        return match.lastgroup
    raise ValueError(
        f"unknown image format (first bytes {data[:8].hex(' ') or 'none'}); "
        "JPEG, PNG, BMP and PNM (pgm, ppm) are read: convert the image"
    )


def image_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) from the header of a JPEG, PNG, BMP or PNM file, without decoding.

    Raises ValueError for other formats and for headers that are cut or state no pixels.
    """
    return _read_header(data)[:2]


def check_image_header(data: bytes, max_pixels: int = MAX_PIXELS) -> None:
    """Raise ValueError where decoding ``data`` would take more memory than it should.

    Refused: more than ``max_pixels`` pixels or a side above ``MAX_SIDE``; a JPEG that comes a
    colour or a refinement at a time (progressive) with more than ``MAX_BUFFERED_PIXELS``; fewer
    bytes than the pixels take however well they are compressed; a JPEG without its end.
    """
    height, width, least, buffered, scan = _read_header(data)
    if height * width > max_pixels or max(height, width) > MAX_SIDE:
        raise ValueError(
            f"{width}×{height} pixels exceed the limit of {max_pixels} (a side: {MAX_SIDE}); "
            "scale the image down"
        )
    if buffered and height * width > MAX_BUFFERED_PIXELS:
        raise ValueError(
            f"{width}×{height} pixels exceed the limit of {MAX_BUFFERED_PIXELS} for a progressive "
            "JPEG; scale the image down, or save it as a baseline JPEG"
        )
    if len(data) < least:
        raise ValueError(
            f"the header states {width}×{height} pixels, which take {least} bytes at least, but "
            f"the image is cut or damaged: it has {len(data)}; replace it"
        )
    # After the first scan: a thumbnail in the metadata has an end mark of its own. Without its
    # end, OpenCV fills a JPEG with grey; it refuses the other formats itself.
    if data[:4] == b"\x89PNG":
        _check_png_chunks(data)
    if scan and data.rfind(_JPEG_END, scan) < 0:
        raise ValueError(f"the jpeg data are cut off ({len(data)} bytes); replace the image")


def _read_header(data: bytes) -> tuple[int, int, int, bool, int]:
    """Return height, width, the fewest bytes of such an image, whether it is buffered whole, and
    the offset of a JPEG's first scan (0 for other formats).
    """
    kind, buffered, scan = image_format(data), False, 0
    if kind == "jpeg":
        height, width, scan, buffered = _jpeg_frame(data)
        least = height * width // 512  # a block of 64 pixels takes a bit, its first coefficient's
    else:
        height, width, least = {"png": _png, "bmp": _bmp, "pnm": _pnm}[kind](data)
    if height <= 0 or width <= 0:
        raise ValueError(f"the header states {width}×{height} pixels; replace the image")
    return height, width, least, buffered, scan


def _require_bytes(data: bytes, count: int) -> None:
    if len(data) < count:
        raise ValueError(f"the image is cut: {len(data)} bytes, {count} needed; replace it")


def _jpeg_frame(data: bytes) -> tuple[int, int, int, bool]:
    """Return height, width, offset of the first scan, and whether several scans make the image."""
    # Images that one encoder made of one size share all that comes before the scan: a training set
    # is of a few such beginnings, and to walk one takes as long as a tenth of decoding.
    begin = data.find(_COLOUR_SCAN, 0, _MOST_KEPT)
    if begin > 0:
        try:
            return _frame_of_beginning(data[: begin + len(_COLOUR_SCAN)])
        except ValueError:  # what was found is no scan, but inside of something longer
            pass
    return _walk_segments(data)


@lru_cache(maxsize=256)
def _frame_of_beginning(data: bytes) -> tuple[int, int, int, bool]:
    return _walk_segments(data)


def _walk_segments(data: bytes) -> tuple[int, int, int, bool]:
    position, height, width, colours, frame = 2, 0, 0, 0, 0
    while True:
        _require_bytes(data, position + 4)
        if data[position] != 0xFF:
            raise ValueError(f"byte {position} of the JPEG is no marker; replace the image")
        marker = data[position + 1]
        if marker == 0xFF:  # Fill bytes may precede a marker.
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # These stand alone, without a length.
            position += 2
            continue
        # SOF0..SOF15 hold the size; C4, C8 and CC among them are other tables.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _require_bytes(data, position + 10)
            if marker > 0xC7:
                raise ValueError(
                    "the JPEG is coded arithmetically, so few bytes may be any number of pixels; "
                    "save it as a usual (Huffman) JPEG"
                )
            height, width, colours = struct.unpack_from(">HHB", data, position + 5)
            frame = marker
        if marker in (0xD9, 0xDA):
            several = frame & 3 == 2 or data[position + 4 : position + 5] < bytes([colours])
            return height, width, position, several
        position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))


def _png(data: bytes) -> tuple[int, int, int]:
    _require_bytes(data, 26)
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR" or colour not in _PNG_CHANNELS or depth not in (1, 2, 4, 8, 16):
        raise ValueError("the PNG does not begin with a valid IHDR chunk; replace the image")
    row = 1 + (width * depth * _PNG_CHANNELS[colour] + 7) // 8
    return height, width, height * row // _DEFLATE_RATIO


def _check_png_chunks(data: bytes) -> None:
    """Raise ValueError where a chunk is longer than the file: OpenCV allocates it first."""
    position = 8
    while data[position + 4 : position + 8] != b"IEND":
        _require_bytes(data, position + 12)
        position += 12 + int.from_bytes(data[position : position + 4], "big")


def _bmp(data: bytes) -> tuple[int, int, int]:
    _require_bytes(data, 26)
    if int.from_bytes(data[14:18], "little") == 12:  # The OS/2 header has 16-bit sizes.
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        _require_bytes(data, 34)
        # A negative height means that rows come from top to bottom.
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)
    run_lengths = compression in (1, 2)  # of which few bytes may make any number of pixels
    return height, width, 0 if run_lengths else height * ((width * depth + 31) // 32 * 4)


def _pnm(data: bytes) -> tuple[int, int, int]:
    match = _PNM_HEAD.match(data[:4096])
    if match is None or max(len(match[2]), len(match[3])) > 10:
        raise ValueError("the PNM header is cut or malformed; replace the image")
    kind, width, height = int(match[1]), int(match[2]), int(match[3])
    if kind == 4:
        return height, width, height * ((width + 7) // 8)
    samples = height * width * (3 if kind in (3, 6) else 1)
    wide = kind in (5, 6) and int(match[4][:10] or 0) > 255
    return height, width, samples * (2 if wide else 1)
