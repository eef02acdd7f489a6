"""Made-up shards for runs in debug mode."""

from pathlib import Path

from clouds_jax import hosts
from clouds_jax.config.experiment import Experiment
from clouds_jax.data import records
from clouds_jax.data.build import run as build
from clouds_jax.selftrain.labels import FromSam
from clouds_jax.stages import shard_set
from clouds_jax.stages.embed import Embed


def shards_root(experiment: Experiment, workdir: Path) -> Path:
    """Root of the shards of a run; in debug mode fake ones are made in its folder."""
    data = experiment.data
    if not experiment.run.debug:
        return Path(data.shards)
    root = workdir / "shards"
    if hosts.is_first():
        generated = data.generated.batch if data.generated else {}
        for ref in {*data.batch, *generated, *experiment.evals.every}:
            name, split = records.parse_ref(ref, data.split)
            build.build(name, raw=None, output=root, split=split, shards=1)
        source = experiment.selftrain.labels if experiment.selftrain else None
        if isinstance(source, FromSam) and source.stored:
            for ref in generated:
                stage = Embed(root, ref, source.sam, data.augmentation.crop)
                shard_set.fill(stage, progress=False)
    hosts.wait("made-up shards")
    return root
