"""What `lwddpm data inspect` prints for people."""

from typing import Any

from rich.table import Column, Table

from lwddpm.cli.views.terminal import MAX_ROWS, console, facts
from lwddpm.wording import listed


def inspected(result: dict[str, Any]) -> None:
    """`data inspect`."""
    volumes = result["volumes"]
    if volumes:
        table = Table(
            "format",
            "sequence",
            "plane",
            "voxels",
            "mm",
            *(Column(of, justify="right") for of in ("volumes", "subjects")),
        )
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for volume in volumes:
            voxels, mm = (" x ".join(f"{side:g}" for side in volume[key]) for key in ("size", "spacing_mm"))
            row = (volume["kind"], volume["sequence"] or "unknown", volume["plane"] or "any", voxels, mm)
            groups.setdefault(row, []).append(volume)
        ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
        for row, members in ordered[:MAX_ROWS]:
            subjects = {volume["subject"] for volume in members} - {None}
            table.add_row(*row, f"{len(members):,}", f"{len(subjects):,}" if subjects else "unknown")
        console.print(table)
        if len(ordered) > MAX_ROWS:
            console.print(f"and {len(ordered) - MAX_ROWS} more kinds of volumes: --json lists all")
        several = sum(volume["volumes"] > 1 for volume in volumes)
        missing = sum(volume["missing_slices"] > 0 for volume in volumes)
        unknown = result["without_subject"]
        facts(
            {"volumes": f"{len(volumes):,}", "subjects": f"{result['subjects']:,}"}
            | ({"without a subject": f"{unknown:,}: leakage between splits cannot be excluded"} if unknown else {})
            | ({"with several volumes": f"{several:,}, of which the first is taken (data.volumes)"} if several else {})
            | ({"with missing slices": f"{missing:,}"} if missing else {})
            | {"faces": "can show in slices of heads; data.faces=crop makes them black"}
        )
    for images in result["images"][:MAX_ROWS]:
        size = " x ".join(map(str, images["size"]))
        deep = ", more than 8 bits" if images["more_than_8_bits"] else ""
        pages = f", {images['pages']} pages" if images["pages"] > 1 else ""
        console.print(f"{images['files']:,} images of {size} pixels{deep}{pages}", markup=False)
    reasons: dict[str, list[str]] = {}
    for file in result["refused"]:
        reasons.setdefault(file["reason"], []).append(file["source"])
    for reason, files in sorted(reasons.items(), key=lambda group: -len(group[1]))[:MAX_ROWS]:
        console.print(f"refused: {len(files):,}: {reason}, such as {files[0]}", markup=False)
    if len(reasons) > MAX_ROWS:
        console.print(f"and {len(reasons) - MAX_ROWS} more reasons: --json lists all")
    for reason, num in result["passed_over"].items():
        console.print(f"not taken: {num:,} {reason}", markup=False)
    kinds = result["kinds"]
    if not kinds:
        console.print("nothing in it can be prepared")
    elif len(kinds) > 1:
        named = listed([f"{num:,} {kind}" for kind, num in kinds.items()])
        console.print(f"it mixes kinds ({named}): a job takes those of its data.format", markup=False)
    for kind in kinds:
        job = "prepare" if kind == "images" else f"prepare_{kind}"
        console.print(f"prepare it: lwddpm run jobs/{job}.yaml --set data.source=PATH", markup=False)
