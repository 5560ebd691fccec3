"""What parts of a source ignore, told by tasks, is what one process would have noted."""

import pickle

from pipelines.images.file_names import IgnoredFiles, IgnoreReason

REASONS = (IgnoreReason.HIDDEN, IgnoreReason.NOT_AN_IMAGE_NAME, IgnoreReason.UNPAIRED)


def test_parts_together_are_the_whole() -> None:
    files = [(f"{number * 7919 % 3000:04d}.txt", REASONS[number % 7 % 3]) for number in range(3000)]
    whole, gathered = IgnoredFiles(), IgnoredFiles()
    for name, reason in files:
        whole.add(name, reason)
    for begin, end in ((0, 2), (2, 1500), (1500, 1500), (1500, 3000)):
        part = IgnoredFiles()
        for name, reason in files[begin:end]:
            part.add(name, reason)
        gathered.merge(pickle.loads(pickle.dumps(part.packed())))
    assert list(gathered) == list(whole) == sorted(files)
    assert len(gathered) == 3000
    assert gathered.describe() == whole.describe()
    assert all(isinstance(reason, IgnoreReason) for _, reason in gathered)
