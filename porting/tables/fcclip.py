"""FC-CLIP's released checkpoints: a head with the text classifier, without its CLIP.

The files hold 303 tensors, none of `backbone.*`: FC-CLIP takes its frozen CLIP from open_clip.
`convert fcclip FILE --clip CLIP_FILE` fills `encoder.` and `text.` from a second file of the
families open_clip_convnext (convnext_large_d_320 for `fcclip_cocopan.pth`) or open_clip_resnet;
alone, a file converts to a head. The classifier reads class names, so it is not bound to the 133
classes of COCO it was trained with; `python -m clouds_jax.text` computes the class matrix.
"""

from porting.tables import clouds, mask2former_d2
from porting.tables.table import Table

TABLE = Table(
    name="fcclip",
    rules=(*clouds.CLIP, *mask2former_d2.TEXT_HEAD, mask2former_d2.CRITERION),
    encoders=clouds.ENCODERS,
    clip_prefix=clouds.CLIP_PREFIX,
    source="FC-CLIP (NeurIPS 2023): fcclip_cocopan.pth and its ResNet variants",
    licence="Apache-2.0",
)
