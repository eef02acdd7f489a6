"""`inspect`: the tensors of a checkpoint, without their numbers."""

import argparse

from porting.commands import FILE_HELP, parser


def add(commands) -> None:
    """Adds the subcommand."""
    one = parser(
        commands,
        "inspect",
        "List the tensors of a checkpoint. Names, types and shapes come from the file's headers;"
        " the numbers are only hashed, so memory does not grow with the file.",
        "python -m porting inspect open_clip_model.safetensors\n"
        "python -m porting inspect hf://timm/convnext_tiny.fb_in22k\n"
        "python -m porting inspect weights/clip",
    )
    one.add_argument("file", help=FILE_HELP)
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints one line per tensor and where they come from."""
    from porting.conversion.convert import summary
    from porting.files.open import headers

    state, provenance = headers(args.file)
    width = max(len(name) for name in state)
    for name, tensor in state.items():
        print(f"{name:{width}}  {tensor.dtype!s:8}  {tensor.shape}")
    print(f"\n{provenance.file}: {provenance.format}, {provenance.bytes:,} bytes")
    print(f"sha256 {provenance.sha256}")
    print(summary(state))
    if provenance.entry or provenance.prefix:
        print(
            f"found under {provenance.entry or 'the top'!r}, prefix {provenance.prefix!r} cut off"
        )
    if provenance.beside:
        print(f"not read: {', '.join(provenance.beside)}")
    return 0
