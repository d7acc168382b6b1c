"""`lwddpm run`, `sample`, `verify` and `doctor`: what computes here."""

from typing import Annotated, Any

import typer

from lwddpm.cli.app import JobArgument, JsonFlag, OverrideOption, TrackingOption, app, enter, finish
from lwddpm.cli.views import run as views
from lwddpm.cli.views.plan import plan as show_plan

DirectoryOption = Annotated[
    str | None, typer.Option("--directory", "-C", metavar="DIR", help="Working folder, where relative paths start.")
]


@app.command()
def run(
    job: JobArgument,
    overrides: OverrideOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of continuing or reusing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Validate, show config and needs; start nothing.")] = False,
    address: Annotated[
        str | None, typer.Option("--address", metavar="ADDR", help="Ray cluster; default RAY_ADDRESS, else embedded.")
    ] = None,
    directory: DirectoryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a job: prepare, train, search, compare, evaluate, tradeoff, audit or sample, as its `kind` says.

    The same command continues an interrupted job from its last checkpoint, and does nothing when the job is done.
    Ctrl-C saves a checkpoint first.

        lwddpm run jobs/demo.yaml

        lwddpm run jobs/kaggle_small.yaml --set data.source=PATH

        lwddpm run jobs/paper.yaml --set data.source=PATH --dry-run
    """
    from lwddpm.jobfile import load_job
    from lwddpm.training.allocator import tune_allocator

    tune_allocator()

    def verb() -> dict[str, Any]:
        loaded = load_job(job, overrides or [])
        if directory is not None:
            enter(directory)
        if dry_run:
            from lwddpm.kinds.dry_run import plan

            return plan(loaded, address)
        from lwddpm.kinds.jobs import run_job

        return run_job(loaded, fresh=fresh, address=address)

    finish(verb, as_json, show_plan if dry_run else views.summary)


@app.command()
def sample(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a folder.")
    ],
    count: Annotated[
        int | None, typer.Option(help="Number of slices; default 64, the sum of the classes, or 8 of an edit.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Named settings of the model: evaluated (default), those of its training's evaluation, or such as "
            "realistic, diverse and balanced from a tradeoff job; plain: ddim in 50 steps. Other options change it."
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME[:COUNT]",
            help="Class to draw, of a conditional model; of several --class each gets its count, or an equal share.",
        ),
    ] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option(
            "--condition",
            metavar="NAME=VALUE",
            help="Any condition of the model, such as plane=axial; empty: not said.",
        ),
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="Shares of the classes: train (default), as of the training slices, or balanced.")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="ddpm, ddim, dpmsolver++, sde-dpmsolver++, unipc or heun. None for GANs."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Denoising steps; more is slower and, up to a point, better. None for GANs."),
    ] = None,
    timestep_spacing: Annotated[
        str | None, typer.Option(help="trailing or karras; default karras for heun, else trailing. None for GANs.")
    ] = None,
    eta: Annotated[float | None, typer.Option(help="DDIM only: 0 (default) deterministic, 1 as noisy as DDPM.")] = None,
    start: Annotated[
        str | None,
        typer.Option(help="gaussian (default where the model has a prior) or noise. None for GANs."),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Lead away from the model's guide, or from no class, such as 1.5; two calls a step. 1: no."),
    ] = None,
    guidance_from: Annotated[
        str | None,
        typer.Option(
            help="What to lead away from: unconditional, guide or unconditional_guide; default: guide, if any."
        ),
    ] = None,
    condition_guidance: Annotated[
        float | None,
        typer.Option(help="Obey more, beside guidance by a guide: lead away from no class, such as 5; one more call."),
    ] = None,
    guidance_interval: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Noise levels sigma between which to guide, such as 0.2 2; default all."),
    ] = None,
    truncation: Annotated[
        float | None,
        typer.Option(
            help="GANs only: latents cut off at so many standard deviations; less: more typical, less varied."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32 or bf16; by default bf16 where the device multiplies it fast. None for GANs."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Image i depends on the seed and i alone.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Slices denoised at a time.")] = 64,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Folder for the images, grid.png and samples.json.")
    ] = "samples",
    format: Annotated[str, typer.Option(help="Of the files, one a slice: png, dicom or nifti.")] = "png",
    workers: Annotated[int, typer.Option(help="Processes that share the work.")] = 1,
    inpaint: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw the white region of --mask anew in this image.")
    ] = None,
    mask: Annotated[str | None, typer.Option(metavar="FILE", help="As large as the image; white: draw anew.")] = None,
    variations: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw variations of this image, or of DATASET/SPLIT/ROW.")
    ] = None,
    strength: Annotated[
        list[float] | None,
        typer.Option(help="Of a variation: 0 the image itself, 1 nothing of it; default 0.3. Repeat for several."),
    ] = None,
    between: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="SEED SEED", help="The way from the first slice of a seed to that of another."),
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Slices on that way, with both ends; default 8.")] = None,
    crop_background: Annotated[
        bool, typer.Option("--crop-background", help="Crop the border of an image of another size than the model's.")
    ] = False,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw synthetic slices from a registered or saved model. Each file says that it is synthetic and how it was drawn.

    They are drawn as the model was evaluated, or with another `--preset`; each option changes that setting alone.
    A diffusion model denoises, in `--steps` steps of a `--sampler`; a GAN draws in one pass and takes neither.

        lwddpm sample models:/lw-ddpm@candidate --count 64 --seed 0 --out DIR

        lwddpm sample models:/lw-ddpm@candidate --preset balanced --steps 20

        lwddpm sample models:/lw-ddpm-conditional@candidate --class glioma_tumor:32 --class no_tumor:32 --guidance 1.5

    An image may be given that drawing begins with (docs/editing.md), or two seeds whose slices it goes between:

        lwddpm sample MODEL --inpaint FILE --mask FILE

        lwddpm sample MODEL --variations FILE --strength 0.2 --strength 0.5

        lwddpm sample MODEL --between 0 1 --frames 16
    """
    from lwddpm.cli.asked import asked
    from lwddpm.jobfile import validate_job

    def verb() -> dict[str, Any]:
        named, number = asked(classes or [], conditions or [], count)
        sampling = {
            "preset": preset,
            "sampler": sampler,
            "num_inference_steps": steps,
            "timestep_spacing": timestep_spacing,
            "eta": eta,
            "start": start,
            "guidance": guidance,
            "guidance_from": guidance_from,
            "condition_guidance": condition_guidance,
            "guidance_interval": guidance_interval,
            "truncation": truncation,
            "conditions": named or None,
            "like": like,
            "precision": precision,
            "batch_size": batch_size,
            "seed": seed,
        }
        edit: dict[str, Any] = {
            "inpaint": inpaint,
            "mask": mask,
            "variations": variations,
            "strength": strength or None,
        }
        edit |= {"between": between, "frames": frames, "crop_background": crop_background or None}
        given = {key: value for key, value in edit.items() if value is not None}
        job = {
            "kind": "sample",
            "name": "sample",
            "model_uri": model,
            "edit": given or None,
            "count": 64 if number is None and not given else number,
            "out": out,
            "format": format,
            "sampling": sampling,
            "workers": {"count": workers},
            "tracking": {"uri": tracking_uri},
        }
        from lwddpm.kinds.jobs import run_job

        return run_job(validate_job(job, "sample"))

    finish(verb, as_json, views.summary)


@app.command()
def verify(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="PNG, DICOM or NIfTI files, or folders of them.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of the model, where it is in no registry.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="FILE", help="What edited images were made from; DATASET/SPLIT/ROW too.")
    ] = None,
    mask: Annotated[
        str | None, typer.Option(metavar="FILE", help="The mask of an image with a region drawn anew.")
    ] = None,
    crop_background: Annotated[
        bool, typer.Option("--crop-background", help="As it was drawn: crop the source's border first.")
    ] = False,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Find out whether images were drawn by a model of this registry, by drawing them again.

    An image says which version drew it, from which seed and number, and how. Only the same pixels prove it.

    Exit code 1 if any image is other than it says, or of none of these models; 2 if a file cannot be read.

    An edited image is drawn again from what it was made from, which its mark names by a hash alone.

        lwddpm verify samples/*.png

        lwddpm verify edited/*.png --source FILE --mask FILE
    """

    def verb() -> list[dict[str, Any]]:
        from lwddpm.config import TrackingConfig
        from lwddpm.kinds.verify import source_of, verify_files

        edit = source_of(source, mask, crop_background=crop_background)
        return verify_files(files, TrackingConfig(uri=tracking_uri), model, edit)

    result = finish(verb, as_json, views.verified)
    if code := max((image["exit_code"] for image in result), default=0):
        raise typer.Exit(code)


@app.command()
def doctor(
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="ADDR", help="Cluster to check, from each of its nodes: http://HOST:8265."),
    ] = None,
    directory: DirectoryOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Check what works here: Ray, MLflow, GPU, memory, metric weights; says what to do about what does not.

    With --address the checks run on that cluster, and each of its nodes is asked for its package versions, whether it
    shares the storage and reaches the tracking server, and its GPUs.

    Exit code 1 if anything that every job needs is broken.
    """

    def verb() -> dict[str, Any]:
        if address is not None and address.startswith("http"):
            from lwddpm.head.credentials import offer_token

            offer_token()  # before Ray is imported
        from lwddpm.head.doctor import examine

        if directory is not None:
            enter(directory)
        return examine(address, tracking_uri)

    if not finish(verb, as_json, views.checkup)["healthy"]:
        raise typer.Exit(1)
