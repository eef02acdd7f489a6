"""`plan`: what a conversion would do."""

import argparse

from porting.commands import add_family, parser


def add(commands) -> None:
    """Adds the subcommand."""
    one = parser(
        commands,
        "plan",
        "Say what `convert` would do, and write nothing. Each source tensor with its target,"
        " layout, shapes and types; what is left out and why; what fits nowhere and what is"
        " missing. The exit status is 0 only if everything fits.",
        "python -m porting plan open_clip_model.safetensors\n"
        "python -m porting plan clouds model_final.pth --clip open_clip_pytorch_model.bin",
    )
    add_family(one)
    one.add_argument("--brief", action="store_true", help="only the counts and what does not fit")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the plan; 0 if it is clean."""
    from porting.conversion.convert import prepare

    made = prepare(
        args.family,
        args.file,
        encoder=args.encoder,
        heads=args.heads,
        clip=args.clip,
        strict=False,
    )
    return show(made, brief=args.brief)


def show(made, *, brief: bool = False) -> int:
    """Prints what a `Conversion` would do; 0 if everything fits."""
    from porting.conversion.convert import summary
    from porting.files.trees import by_dotted_path

    wanted = by_dotted_path(made.target.want)
    if not brief:
        for name, (rule, addresses) in made.plan.used.items():
            tensor = made.state[name]
            targets = [
                f"{a} {tuple(leaf.shape)[a.index is not None :]} {leaf.dtype}"
                for a in addresses
                if (leaf := wanted.get(a.path)) is not None
            ]
            print(
                f"{name} {tensor.shape} {tensor.dtype} -> {', '.join(targets)} ({rule.layout.name})"
            )
        print()
    misfits = made.plan.misfits
    unmapped = [text for text in misfits if text.endswith("no rule") or " rules: " in text]
    missing = [text for text in misfits if text.endswith("nothing in the checkpoint fills it")]
    print(f"{made.provenance.file}: {summary(made.state)}; family {made.table.name}")
    print(f"target: {made.target.to_json()}")
    print(f"{len(made.plan.used)} used, filling {len(wanted)} arrays of ours")
    reasons: dict[str, int] = {}
    for rule in made.plan.dropped.values():
        reasons[rule.why] = reasons.get(rule.why, 0) + 1
    print(f"{len(made.plan.dropped)} left out")
    for why, count in reasons.items():
        print(f"  {count}: {why}")
    print(f"{len(unmapped)} without a rule, {len(missing)} missing")
    others = len(misfits) - len(unmapped) - len(missing)
    print(f"{others} of another shape, type or place")
    for text in misfits:
        print(f"  {text}")
    if made.table.clip_prefix and made.target.encoder is None:
        print("the file holds no encoder; --clip FILE takes it from a second file")
    print("does not fit" if misfits else "everything fits")
    return 1 if misfits else 0
