"""Names of formats that are not decoded, so that a reject says what the file is."""

_MAGIC = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xffO\xffQ": "JPEG 2000",
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"<svg": "SVG",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"#?RGBE": "Radiance HDR",
    b"\0\0\1\0": "ICO",
    b"\0\0\2\0": "CUR",
    b"icns": "ICNS",
    b"qoif": "QOI",
    b"gimp xcf": "XCF",
    b"DDS ": "DDS",
    b"SIMPLE  =": "FITS",
    b"II\xbc\x01": "JPEG XR",
    b"\x8aMNG": "MNG",
    b"\x8bJNG": "JNG",
    b"MM\0+": "big-endian BigTIFF",
    b"IIRO": "camera raw (ORF)",
    b"IIU\0": "camera raw (RW2)",
    b"FUJIFILMCCD-RAW": "camera raw (RAF)",
    b"P7\n": "PAM",
    b"PF\n": "PFM",
    b"Pf\n": "PFM",
    b"\x1aE\xdf\xa3": "a Matroska or WebM video",
    b"AT&TFORM": "DjVu",
}


def describe(data: bytes) -> str | None:
    """The format, if it is a known one that is not decoded."""
    if data[:4] == b"RIFF" and data[8:12] in (b"AVI ", b"WAVE"):
        return {b"AVI ": "an AVI video", b"WAVE": "a WAVE sound"}[data[8:12]]
    start = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"<?xml", b"<!--", b"<!DOCTYPE svg")) and b"<svg" in start:
        return "SVG"
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic) or data.startswith(magic)), None)
