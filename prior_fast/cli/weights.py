"""`prior-fast weights`: inspects and converts the authors' files, and exports encoders to other libraries' formats."""

import argparse
from pathlib import Path

from prior_fast.cli.inputs import look_at_checkpoint, look_at_path
from prior_fast.cli.parser import examples


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `weights`."""
    parser = subparsers.add_parser(
        "weights",
        help="inspect and convert published weights, export encoders",
        description="Inspect the authors' published weights, convert them to a checkpoint, and export a checkpoint's "
        "encoders for torchvision, timm and transformers.",
        epilog=examples(
            "prior-fast weights convert total_prior.ckpt --out released --tokenizer emilyalsentzer/Bio_ClinicalBERT",
            "prior-fast weights export run --out encoders",
        ),
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    inspect = tasks.add_parser(
        "inspect",
        help="list the tensors of a file that are used, dropped (with the reason) or missing",
        description="List the tensors of a file that are used, dropped (with the reason) or missing. Exit code 1 if "
        "the model can't be made of them.",
        epilog=examples("prior-fast weights inspect total_prior.ckpt", "prior-fast weights inspect run"),
    )
    inspect.add_argument(
        "path",
        type=Path,
        metavar="PATH",
        help="a .pt, .pth, .ckpt or .safetensors file, a run, a checkpoint, or an encoder's folder",
    )
    inspect.add_argument("--out", type=Path, metavar="FILE", help="JSON file that lists every key")
    _add_stage(inspect)
    inspect.set_defaults(run=run_inspect)
    convert = tasks.add_parser(
        "convert",
        help="make a checkpoint of the authors' file, or a ResNet file if it has an image encoder only",
        description="Convert the authors' file to a checkpoint that `evaluate`, `pictures` and `train` read, or to a "
        "ResNet file if it has an image encoder only.",
        epilog=examples(
            "prior-fast weights convert prior_resnet50.pt --out released-resnet",
            "prior-fast weights convert total_prior.ckpt --out released --tokenizer emilyalsentzer/Bio_ClinicalBERT",
        ),
    )
    convert.add_argument("path", type=Path, metavar="PATH", help="a .pt, .pth, .ckpt or .safetensors file")
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="the checkpoint's folder")
    convert.add_argument("--tokenizer", metavar="NAME", help="text encoder's tokenizer: a Hugging Face name or folder")
    _add_stage(convert)
    convert.set_defaults(run=run_convert)
    export = tasks.add_parser(
        "export",
        help="make a ResNet state dict and a transformers folder of a checkpoint",
        description="Write the encoders of a checkpoint as a ResNet's state dict, for torchvision and timm, and as a "
        "folder for transformers.",
        epilog=examples("prior-fast weights export run --out encoders"),
    )
    export.add_argument("path", type=Path, metavar="CHECKPOINT", help="a run's folder or one checkpoint")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the encoders")
    export.set_defaults(run=run_export)


def _add_stage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stage",
        type=int,
        choices=(1, 2, 3),
        help="the stage that was trained last (default: by the file's epochs, else its name, else 3); weights of stage "
        "1 are evaluated without the prototype bank",
    )


def run_inspect(args: argparse.Namespace) -> int:
    look_at_path(args.path)
    from prior_fast.console import busy, stdout
    from prior_fast.files import write_json
    from prior_fast.files.claim import claim_file

    with busy(f"reading {args.path}"):
        from prior_fast.weights.convert import inspect
        from prior_fast.weights.own import inspect_own

        own = inspect_own(args.path)
        inspected = inspect(args.path, args.stage) if own is None else None
    if own is not None:
        stdout.print(f"{own.path}: {own.kind}, {own.tensors} tensors")
        if own.problem:
            stdout.print(own.problem)
    else:
        _show(inspected)
    found = own or inspected
    assert found is not None
    if args.out:
        with claim_file(args.out):
            write_json(args.out, found.report())
        stdout.print(f"{args.out} lists every key")
    return 1 if found.problem else 0


def run_convert(args: argparse.Namespace) -> int:
    look_at_path(args.path)
    from prior_fast.console import busy, stdout
    from prior_fast.files.claim import claim_new

    with busy(f"converting {args.path}"), claim_new(args.out):
        from prior_fast.weights.convert import convert, resnet_file
        from prior_fast.weights.structure import image_settings

        found = convert(args.path, args.out, args.tokenizer, args.stage)
    _show(found)
    if found.structure is None:
        words = [f"model.image.weights={args.out / resnet_file(found)}", *image_settings(found.image)]
        stdout.print(f"{args.out}: a ResNet; train with {' '.join(words)}")
    else:
        stdout.print(f"{args.out}: a checkpoint with layout=released")
    stdout.print("report.json lists every key")
    return 0


def run_export(args: argparse.Namespace) -> int:
    look_at_checkpoint(args.path)
    from prior_fast.console import busy, stdout
    from prior_fast.files.claim import claim_new

    with busy(f"exporting {args.path}"):
        from prior_fast.training.checkpoint import open_checkpoint
        from prior_fast.weights.export import export

        checkpoint = open_checkpoint(args.path)
        with claim_new(args.out):
            lines = export(checkpoint, args.out)
    for line in lines:
        stdout.print(f"{args.out}/{line}")
    return 0


def _show(found: "object") -> None:
    from prior_fast.console import print_table, stdout
    from prior_fast.weights.convert import Inspected

    assert isinstance(found, Inspected)
    kind = "an image encoder" if found.names.image_only else "a whole model"
    stdout.print(f"{found.path}: {kind}, {len(found.names.used)} tensors used")
    if found.state is not None and found.structure is not None:
        stdout.print(
            f"stage {found.state.stage} ({found.state.evidence}), tau {found.state.tau:.3g}, "
            f"model.sentence_pool={found.structure.sentence_pool}"
        )
    rows = [(key, f"dropped: {reason}") for key, reason in found.names.dropped.items()]
    rows += [(key, "unknown: no part of the model uses it") for key in found.names.unknown]
    rows += [(key, "missing: the model needs it") for key in found.missing]
    rows += [(key, f"has shape {list(got)}, wanted {list(wanted)}") for key, got, wanted in found.misfits]
    if rows:
        print_table("other tensors", ("tensor", "what"), rows)
    if found.problem:
        stdout.print(found.problem)
