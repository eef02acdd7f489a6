"""One rule table per family of checkpoints, by name. Imports neither JAX nor torch."""

from porting.tables import (
    clouds,
    clouds_jax,
    convnext_hf,
    dinov3_convnext_hf,
    efficientnet_lite0,
    fcclip,
    mask2former_d2,
    mask2former_hf,
    open_clip_convnext,
    open_clip_resnet,
    open_clip_text,
    resnet_d2,
    resnet_hf,
    sam,
    sam_decoder,
    segformer,
    timm_convnext,
    torchvision_resnet,
)
from porting.tables.table import Table

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        open_clip_convnext.TABLE,
        timm_convnext.TABLE,
        timm_convnext.CLIP_TABLE,
        convnext_hf.TABLE,
        dinov3_convnext_hf.TABLE,
        segformer.HF_TABLE,
        segformer.TABLE,
        open_clip_resnet.TABLE,
        open_clip_text.TABLE,
        torchvision_resnet.TABLE,
        resnet_hf.TABLE,
        resnet_d2.TABLE,
        resnet_d2.MSRA_TABLE,
        efficientnet_lite0.TABLE,
        mask2former_d2.TABLE,
        clouds.TABLE,
        clouds.TEXT_TABLE,
        clouds.POOLED_TABLE,
        fcclip.TABLE,
        mask2former_hf.TABLE,
        sam_decoder.TABLE,
        *sam.TABLES,
    )
}


OURS = clouds_jax.TABLE  # for our own weights alone, so not among the families to choose from


def get_table(name: str) -> Table:
    """The table of a family.

    Raises:
        KeyError: there is no such family; the message lists those that exist.
    """
    if name == OURS.name:
        return OURS
    if name not in TABLES:
        raise KeyError(f"TABLES has no {name!r}; it has: {', '.join(TABLES)}.")
    return TABLES[name]
