"""What is put aside comes back, from memory and from the disk."""

import pytest

from pipelines.storage import spool
from pipelines.storage.spool import Spool


@pytest.mark.parametrize("memory", [1, 1 << 20])
def test_pieces_come_back_in_any_order_while_more_are_added(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_MEMORY_BYTES", memory)
    pieces = [bytes([number]) * number for number in range(20)]
    aside = Spool()
    extents = []
    for piece in pieces:
        extents.append(aside.append(piece))
        assert aside.read(extents[(len(extents) - 1) // 2]) == pieces[(len(extents) - 1) // 2]
    assert [aside.read(extent) for extent in reversed(extents)] == pieces[::-1]
    assert aside.num_bytes == sum(map(len, pieces))
