"""Images that end the process that decodes them, hang it, or take more memory than they may.

Their decoder is a plugin of Pillow that stands in for its own PPM decoder in every Python process that has the folder
of `lay_plugin` on its path. Its faults are real: a read at address 0, a sleep that keeps the GIL, an allocation whose
failure aborts.
"""

from pathlib import Path

_PLUGIN = """
import ctypes, os
from PIL import Image, PpmImagePlugin

class Poisonous(PpmImagePlugin.PpmImageFile):
    def _open(self):
        self.kind = self.fp.read(64).split(b"\\n")[1]
        self.fp.seek(0)
        super()._open()

    def load(self):
        if self.kind == b"# segfault":
            ctypes.string_at(0)
        if self.kind == b"# hang":
            ctypes.PyDLL(None).sleep(3600)
        if self.kind == b"# memory":
            allocate = ctypes.CDLL(None).malloc
            allocate.argtypes, allocate.restype = (ctypes.c_size_t,), ctypes.c_void_p
            if allocate(1 << 34) is None:
                os.abort()
        return super().load()

Image.register_open("PPM", Poisonous, PpmImagePlugin._accept)
"""

KINDS = {
    "segfault": "decoding ends the process with SIGSEGV; 8589934592 bytes of memory were allowed",
    "hang": "decoding takes more than 5 s",
    "memory": "decoding ends the process with SIGABRT; 8589934592 bytes of memory were allowed",
}
"""Kind of poison -> why such an image is rejected, where image_seconds is 5."""


def lay_plugin(folder: Path) -> Path:
    """A folder that has to be on the path of the processes that decode."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_PLUGIN)
    return folder


def poison(kind: str, side: int = 40) -> bytes:
    """A PPM of one of the KINDS; a harmless one for any other word."""
    return b"P6\n# %s\n%d %d\n255\n" % (kind.encode(), side, side) + bytes(side * side * 3)
