"""Files that are pictures of a kind that is not read here, or no pictures, by their first bytes.

Scraped sets and phones are full of both: who is told "HEIC" knows what to do, who is told "no
image" looks for an error page.
"""

import re

#: Pictures: (first bytes, the name of the format).
_PICTURES: tuple[tuple[bytes, str], ...] = (
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"8BPS", "Photoshop"),
    (b"gimp xcf", "GIMP"),
    (b"\0\0\x01\0", "ICO"),
    (b"\0\0\x02\0", "Windows cursor"),
    (b"icns", "Apple icon"),
    (b"qoif", "QOI"),
    (b"FLIF", "FLIF"),
    (b"BPG\xfb", "BPG"),
    (b"DDS ", "DirectDraw surface"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"\x01\xda\0", "SGI"),
    (b"\x01\xda\x01", "SGI"),
    (b"\x8aMNG", "MNG"),
    (b"\x8bJNG", "JNG"),
    (b"AT&TFORM", "DjVu"),
    (b"\xd7\xcd\xc6\x9a", "Windows metafile"),
    (b"SIMPLE  =", "FITS"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"IIRO", "camera raw"),
    (b"IIU\0", "camera raw"),
    (b"farbfeld", "farbfeld"),
    (b"%!PS", "PostScript"),
    (b"/* XPM */", "XPM"),
)
#: Brands of ISO base media files (ISO/IEC 14496-12) that are still pictures.
_BRANDS: dict[bytes, str] = {
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"
    ),
    b"mif1": "HEIF",
    b"msf1": "HEIF",
    b"crx ": "camera raw",
    b"jxl ": "JPEG XL",
    b"avci": "HEIF of H.264",
    b"vvic": "HEIF of H.266",
}
_AVIF_BRANDS = (b"avif", b"avis")
_NETPBM = re.compile(rb"P[1-7FfH6][ \t\r\n]+(#[^\n]*\n\s*)*[0-9W]")
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"
_TGA_KINDS = (1, 2, 3, 9, 10, 11)
_OTHER = (
    (b"PK\x03\x04", "a zip file"),
    (b"%PDF", "a PDF file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)"),
    (b"FLV\x01", "a video (Flash)"),
    (b"OggS", "an Ogg file"),
)


def is_avif(data: bytes) -> bool:
    """Whether the container says that it holds an AVIF picture."""
    return any(brand in _AVIF_BRANDS for brand in _brands(data))


def other_picture(data: bytes) -> str | None:
    """The name of the format of a picture that is not read here; None of what is none."""
    if data.endswith(_TGA_FOOTER) or _is_tga(data):  # begins as a cursor's does
        return "TGA"
    for magic, name in _PICTURES:
        if data.startswith(magic):
            return name
    named = [_BRANDS[brand] for brand in _brands(data) if brand in _BRANDS]
    if named:  # containers name their kind (HEIF) beside their codec, in any order
        return next((name for name in named if name != "HEIF"), "HEIF")
    if _NETPBM.match(data[:200]):
        return "PNM (PBM, PGM, PPM)"
    if data[128:132] == b"DICM":
        return "DICOM"
    return None


def describe(data: bytes) -> str:
    """What a file that is no picture seems to be."""
    for magic, what in _OTHER:
        if data.startswith(magic):
            return what
    if data[4:8] == b"ftyp":
        return "a video (MP4 or QuickTime)"
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        return "SVG"
    if start.startswith((b"<!doctype html", b"<html")) or b"<body" in start:
        return "HTML"
    if start.startswith(b"<"):
        return "XML or HTML"
    if start.startswith((b"{", b"[")):
        return "JSON"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        return "text"
    return "no known image format"


def _brands(data: bytes) -> list[bytes]:
    """The brands of an ISO base media file, the major one first; none of other files."""
    if data[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(data[:4], "big"), len(data), 512)
    return [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]


def _is_tga(data: bytes) -> bool:
    """A header of TGA, which begins with no mark: every field must make sense."""
    if len(data) < 18 or data[1] > 1 or data[2] not in _TGA_KINDS:
        return False
    has_map = data[2] in (1, 9)
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (12, 14))
    depths = (8, 15, 16, 24, 32)
    fits_map = data[7] in depths if has_map else not any(data[3:8])
    return data[1] == has_map and fits_map and width > 0 and height > 0 and data[16] in depths
