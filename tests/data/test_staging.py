import numpy as np

from lwddpm.data.duplicates import perceptual_hashes
from lwddpm.data.location import locate
from lwddpm.data.sources import Slice, UnusableFile
from lwddpm.data.staging import Chunk, Staging, stage_chunk

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8)


class Numbered:
    """Slices that are named after their number; odd ones are damaged."""

    def read(self, name):
        if int(name) % 2:
            raise UnusableFile("odd")
        return Slice(IMAGES[int(name)], name.encode())


def test_pixels_are_read_back_by_place_and_rejected_slices_take_none(tmp_path):
    staging = Staging(locate(str(tmp_path)), 16)
    staged = [
        slice_
        for chunk in ([(0, "0"), (1, "1"), (2, "2")], [(3, "3"), (4, "4")], [(5, "5")])
        for slice_ in stage_chunk(staging, Chunk(Numbered(), chunk))
    ]
    assert [slice_.name for slice_ in staged] == list("012345")
    assert [slice_.reason for slice_ in staged] == [None, "odd"] * 3
    usable = [slice_ for slice_ in staged if slice_.reason is None]
    assert [slice_.pixels_sha256 for slice_ in usable] == [b"0", b"2", b"4"]
    expected = perceptual_hashes(IMAGES[::2])
    assert [slice_.hashes for slice_ in usable] == [each.tobytes() for each in expected]
    for order in ([0, 1, 2], [2, 0, 1], [1, 1]):
        places = [(usable[i].chunk, usable[i].position) for i in order]
        np.testing.assert_array_equal(staging.read(places), IMAGES[::2][order])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chunk-000000", "chunk-000003"]
