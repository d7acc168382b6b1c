"""Which MR sequence a scan is: one vocabulary, of which alone something may be kept of names and descriptions.

Free text of a scanner or a file can hold anything, also who somebody is; a word of a known list cannot.
"""

import re
from collections.abc import Sequence

# BIDS' suffixes of scans, and what others call the same
KNOWN = {
    name.lower(): name
    for name in (
        "T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "UNIT1", "angio", "bold", "sbref",
        "dwi", "epi", "asl", "m0scan", "MTw", "T1map", "T2map", "T2starmap", "PDmap", "SWI",
        "T1", "T1n", "T1c", "T1ce", "T1gd", "T2", "T2f", "PD", "ADC", "MRA",
    )
}  # fmt: skip
# What protocols are called at scanners, the more special first: words of a description -> BIDS' name.
DESCRIBED = (
    ("T1w", r"t1.?flair"),
    ("FLAIR", r"flair|tirm|dark.?fluid"),
    ("SWI", r"swi|swan|swip|venbold|susceptibility"),
    ("dwi", r"dwi|dti|diff(usion)?|adc|trace|ep2d.?diff|hardi|noddi"),
    ("asl", r"p?c?asl|perf(usion)?|dsc|dce"),
    ("bold", r"bold|fmri|func|rest(ing)?.?state"),
    ("angio", r"tof|mra|angio(graphy)?|pca"),
    ("T2starw", r"t2.?star\w*|t2\*\w*|t2.?(gre|ffe|fl2d|hemo)|gre.?hemo|haemo|medic|merge"),
    ("T1w", r"t1\w*|mp.?rage|mprage|ir.?fspgr|bravo|vibe|spgr|mdeft"),
    ("T2w", r"t2\w*|ciss|fiesta|hr.?t2"),
    ("PDw", r"pd\w*|proton.?density"),
)
# AcquisitionContrast of enhanced MR (PS3.3 C.8.13.3.1)
CONTRASTS = {
    "T1": "T1w", "T2": "T2w", "T2_STAR": "T2starw", "FLUID_ATTENUATED": "FLAIR", "DIFFUSION": "dwi",
    "PERFUSION": "asl", "PROTON_DENSITY": "PDw", "TOF": "angio", "FLOW_ENCODED": "angio",
}  # fmt: skip


def sequence_of_name(stem: str) -> str | None:
    """The last part of a file's name that is known as a sequence; None where none is."""
    parts = re.split(r"[-_. ]", stem.lower())
    return next((KNOWN[part] for part in reversed(parts) if part in KNOWN), None)


def sequence_of_scan(
    texts: Sequence[str],
    contrast: str = "",
    technique: Sequence[str] = (),
    echo_ms: float | None = None,
    repetition_ms: float | None = None,
    inversion_ms: float | None = None,
) -> str | None:
    """The sequence of a DICOM series in BIDS' words; None where nothing tells.

    Args:
        texts: what protocols are called (SeriesDescription, ProtocolName, SequenceName), the most telling first.
        contrast: AcquisitionContrast of enhanced MR.
        technique: ScanningSequence: SE, IR, GR, EP, RM.
        echo_ms, repetition_ms, inversion_ms: they decide as textbooks say: short TE and TR are T1, long ones T2,
            long TR with short TE is proton density, long TI with long TE fluid attenuated.
    """
    if contrast in CONTRASTS:
        return CONTRASTS[contrast]
    for text in texts:
        words = re.sub(r"[^a-z0-9*]+", " ", text.lower())
        for name, pattern in DESCRIBED:
            if re.search(rf"(^| )({pattern.replace('.?', ' ?')})( |$)", words):
                return name
    if echo_ms is None or repetition_ms is None or "EP" in technique:
        return None
    if "GR" in technique:
        prepared = inversion_ms is not None and 500 < inversion_ms < 1500
        return "T1w" if echo_ms < 10 and (prepared or repetition_ms < 1000) else None
    if "IR" in technique and inversion_ms is not None and inversion_ms > 1500:
        return "FLAIR" if echo_ms > 60 else "T1w"
    if repetition_ms < 1000 and echo_ms < 30:
        return "T1w"
    if repetition_ms > 1800:
        return "T2w" if echo_ms > 60 else "PDw" if echo_ms < 40 else None
    return None
