"""`inspect`: lists the tensors of a checkpoint without their values."""

import argparse

from porting.commands import FILE_HELP, add_selection, parser, print_origin, selection_of


def add(commands) -> None:
    """Adds the subcommand."""
    command = parser(
        commands,
        "inspect",
        "List the tensors of a checkpoint. Names, dtypes and shapes come from the file's headers;"
        " the file is only hashed, so memory does not grow with it.",
        "python -m porting inspect open_clip_model.safetensors\n"
        "python -m porting inspect hf://timm/convnext_tiny.fb_in22k\n"
        "python -m porting inspect checkpoint.pth.tar --entry state_dict_ema\n"
        "python -m porting inspect weights/clip",
    )
    command.add_argument("file", help=FILE_HELP)
    add_selection(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints one line per tensor, and the origin of the file."""
    from porting.files.open import read_headers, summary

    state, provenance = read_headers(args.file, selection_of(args))
    width = max(len(name) for name in state)
    for name, tensor in state.items():
        print(f"{name:{width}}  {tensor.dtype!s:8}  {tensor.shape}")
    print(f"\n{provenance.file}: {provenance.format}, {provenance.bytes:,} bytes")
    print(f"sha256 {provenance.sha256}")
    print(summary(state))
    print_origin(provenance)
    return 0
