r"""The training of a round in the debug mode of the stages, whose shards it reads.

    python -m experiments.rounds --config configs/stages/laptop.py:debug --workdir runs/debug \
        --rounds 2
"""

from configs import joint_gta


def get_config():
    """The debug mode of the joint phase, on shards and weights that are there."""
    config = joint_gta.get_config("debug")
    config.debug.enabled = False
    config.data.generated.batch = {"generated/train": 2}
    config.eval.enabled = False
    return config
