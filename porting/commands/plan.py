"""`plan`: shows what a conversion would do."""

import argparse
from typing import TYPE_CHECKING

from porting.commands import add_family, parser, print_origin, selection_of

if TYPE_CHECKING:
    from porting.conversion.conversion import Conversion  # loads JAX


def add(commands) -> None:
    """Adds the subcommand."""
    command = parser(
        commands,
        "plan",
        "Show what `convert` would do, and write nothing. Each source tensor with its target,"
        " layout, shapes and dtypes; dropped tensors with the reason; tensors that fit nowhere and"
        " targets that nothing fills. The exit status is 0 only if everything fits.",
        "python -m porting plan open_clip_model.safetensors\n"
        "python -m porting plan clouds model_final.pth --clip open_clip_pytorch_model.bin\n"
        "python -m porting plan checkpoint.pth --entry model_ema --prefix student. --drop '^loss'",
    )
    add_family(command)
    command.add_argument("--brief", action="store_true", help="only the counts and the misfits")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the plan; 0 if it is clean."""
    from porting.conversion.convert import prepare

    conversion = prepare(
        args.family,
        args.file,
        encoder=args.encoder,
        heads=args.heads,
        clip=args.clip,
        strict=False,
        selection=selection_of(args),
    )
    return show(conversion, brief=args.brief, every=args.all)


def show(conversion: "Conversion", *, brief: bool = False, every: bool = False) -> int:
    """Prints the plan of a conversion; 0 if everything fits.

    Args:
        conversion: with or without misfits.
        brief: leaves out the tensors that fit.
        every: lists every misfit, not grouped by pattern.
    """
    from porting.files.open import summary
    from porting.files.trees import by_dotted_path
    from porting.tables.misfits import grouped_misfits

    wanted = by_dotted_path(conversion.target.shapes)
    if not brief:
        for name, (rule, addresses) in conversion.plan.used.items():
            tensor = conversion.state[name]
            targets = [
                f"{a} {tuple(leaf.shape)[a.index is not None :]} {leaf.dtype}"
                for a in addresses
                if (leaf := wanted.get(a.path)) is not None
            ]
            print(
                f"{name} {tensor.shape} {tensor.dtype} -> {', '.join(targets)} ({rule.layout.name})"
            )
        print()
    misfits = conversion.plan.misfits
    unmapped = [text for text in misfits if text.endswith("no rule") or " rules: " in text]
    missing = [text for text in misfits if text.endswith("nothing in the checkpoint fills it")]
    print(
        f"{conversion.provenance.file}: {summary(conversion.state)}; family {conversion.table.name}"
    )
    print_origin(conversion.provenance)
    print(f"target: {conversion.target.to_json()}")
    print(f"{len(conversion.plan.used)} used, filling {len(wanted)} arrays of ours")
    reasons: dict[str, int] = {}
    for rule in conversion.plan.dropped.values():
        reasons[rule.why] = reasons.get(rule.why, 0) + 1
    print(f"{len(conversion.plan.dropped)} left out")
    for why, count in reasons.items():
        print(f"  {count}: {why}")
    print(f"{len(unmapped)} without a rule, {len(missing)} missing")
    others = len(misfits) - len(unmapped) - len(missing)
    print(f"{others} of another shape, type or place")
    shown = misfits if every else grouped_misfits(misfits)
    for text in shown:
        print(f"  {text}")
    if len(shown) < len(misfits):
        print("--all lists every misfit")
    if conversion.table.clip_prefix and conversion.target.encoder is None:
        print("the file holds no encoder; --clip FILE takes it from a second file")
    print("does not fit" if misfits else "everything fits")
    return 1 if misfits else 0
