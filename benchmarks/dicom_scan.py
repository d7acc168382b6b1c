"""Scanning a tree of DICOM files: headers alone, by one process and by all, and from the headers to volumes.

    python benchmarks/dicom_scan.py [--files 5000] [--side 256] [--folder DIR] [--rounds 3] [--json]

Files are generated: 256 x 256 pixels of 12 bits in 16, 180 to a series, headers of 170 elements with private groups of
52 KB, as Siemens scanners write them. Rates are files a second of processor time, which other programs on the machine
change little, and of a clock; medians over the rounds, with the files in the page cache. Beside them stands what
`pydicom.dcmread(stop_before_pixels=True)` alone takes in the same minutes, and the memory that a process grows by when
it reads and assembles the whole tree. What one process does is measured on the first 5,000 files.
"""

import argparse
import json
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset

from lwddpm.data import header_scan
from lwddpm.data.dicom import read_header
from lwddpm.data.dicom_series import assemble
from lwddpm.data.header_scan import num_processes, read_headers

SLICES = 180
VALUES = {"LO": "a text", "SH": "text", "CS": "NO", "DS": "12.5", "IS": "3", "US": 3, "DA": "20200101", "TM": "101010"}


def header(side: int) -> Dataset:
    """A header as long as those of scanners."""
    made = Dataset()
    made.SOPClassUID = pydicom.uid.MRImageStorage
    made.ImageType, made.SeriesDescription = ["ORIGINAL", "PRIMARY", "M", "ND"], "t1_mprage_sag"
    elements = [
        (tag, vr)
        for tag, (vr, vm, _, retired, keyword) in DicomDictionary.items()
        if vr in VALUES
        and vm == "1"
        and not retired
        and keyword not in made
        and tag >> 16 in (8, 0x10, 0x18, 0x20, 0x40)
    ]
    for tag, vr in elements[:: len(elements) // 120]:
        made.add_new(tag, vr, VALUES[vr])
    block = made.private_block(0x29, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", bytes(12_000))
    block.add_new(0x20, "OB", bytes(40_000))
    block = made.private_block(0x19, "SIEMENS MR HEADER", create=True)
    for number in range(30):
        block.add_new(number, "LO", "a value")
    made.ImageOrientationPatient, made.PixelSpacing, made.SliceThickness = [1, 0, 0, 0, 1, 0], [1, 1], 1
    made.Rows = made.Columns = side
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.PixelData = np.zeros((side, side), np.uint16).tobytes()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return made


def write_tree(root: Path, num: int, side: int) -> list[str]:
    """`num` files of series in folders of their own; names in order. All but the first are copies with other ids."""
    made, names = header(side), []
    made.SeriesInstanceUID, made.StudyInstanceUID, made.SOPInstanceUID = "1.2.900001", "1.3.900001", "1.4.9000000001"
    made.PatientID, made.InstanceNumber, made.ImagePositionPatient = "P00001", 1001, ["0", "0", "1003.0"]
    made.save_as(root / "first", enforce_file_format=True)
    content = (root / "first").read_bytes()
    (root / "first").unlink()
    for number in range(num):
        series, position = divmod(number, SLICES)
        name = f"{series:04d}/IM{position:04d}"
        (root / name).parent.mkdir(exist_ok=True)
        copy = content
        for before, after in (
            (b"1.2.900001", f"1.2.{900_001 + series}"), (b"1.3.900001", f"1.3.{900_001 + series}"),
            (b"1.4.9000000001", f"1.4.{9_000_000_001 + number}"), (b"P00001", f"P{series:05d}"),
            (b"1003.0", f"{1000 + position:d}.0"),
        ):  # fmt: skip
            copy = copy.replace(before, after.encode())
        (root / name).write_bytes(copy)
        names.append(name)
    return names


def cpu_of_processes() -> float:
    """Seconds of processor time of this process and of those that it has started and that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def measure(root: Path, names: list[str]) -> dict[str, float]:
    """Files a second, of three ways."""
    some = names[:5000]
    cpu = time.process_time()
    for name in some:
        pydicom.dcmread(root / name, stop_before_pixels=True)
    bare_cpu = time.process_time() - cpu
    start, cpu = time.perf_counter(), time.process_time()
    headers = [read_header(root / name) for name in some]
    alone, alone_cpu = time.perf_counter() - start, time.process_time() - cpu
    start = time.perf_counter()
    contents = assemble(zip(some, headers, strict=True))
    assembled = time.perf_counter() - start
    assert not contents.refused
    assert len(contents.volumes) == -(-len(some) // SLICES)
    del headers, contents
    header_scan.WORTHWHILE = 0
    start, cpu = time.perf_counter(), cpu_of_processes()
    for _ in read_headers(read_header, str(root), names, "Reading headers"):
        pass
    together = time.perf_counter() - start
    together_cpu = cpu_of_processes() - cpu
    num = len(names)
    return {
        "a second and core": len(some) / alone_cpu,
        "by bare pydicom": len(some) / bare_cpu,
        "ratio to that": bare_cpu / alone_cpu,
        "a second, one process": len(some) / alone,
        "a second, all processes": num / together,
        "the same, and core": num / together_cpu,
        "assembled a second": len(some) / assembled,
    }


def memory_grown(root: Path, names: list[str]) -> float:
    """MiB by which a fresh process grows that reads all headers by processes and assembles them."""
    code = (
        "import resource, sys, pickle\n"
        "from lwddpm.data.dicom import read_header\n"
        "from lwddpm.data.dicom_series import assemble\n"
        "from lwddpm.data.header_scan import read_headers\n"
        "if __name__ == '__main__':\n"
        "    root, names = pickle.load(sys.stdin.buffer)\n"
        "    read_header(__import__('pathlib').Path(root, names[0]))\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    assemble(zip(names, read_headers(read_header, root, names, 'Reading headers'), strict=True))\n"
        "    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    script = root / "measure.py"  # a file: the processes that it starts import it again
    script.write_text(code)
    try:
        ended = subprocess.run(
            [sys.executable, str(script)], input=pickle.dumps((str(root), names)), capture_output=True, check=True
        )
    finally:
        script.unlink()
    return float(ended.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--side", type=int, default=256, help="pixels along a side")
    parser.add_argument("--folder", help="where to write the tree; it is deleted afterwards")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        names = write_tree(Path(folder), arguments.files, arguments.side)
        grown = memory_grown(Path(folder), names)
        rounds = [measure(Path(folder), names) for _ in range(arguments.rounds)]
    result: dict[str, Any] = {"files": arguments.files, "processes": num_processes()}
    result["MiB of the driver"] = grown
    result |= {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
    if arguments.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:<26}{value:10,.1f}")


if __name__ == "__main__":
    main()
