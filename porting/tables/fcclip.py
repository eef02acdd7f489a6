"""FC-CLIP's released checkpoints: a head with the text classifier, without its CLIP.

The files hold 303 tensors, none of `backbone.*`: their frozen CLIP was taken from open_clip. So
must ours: `convert fcclip FILE --clip CLIP_FILE` fills `encoder.` and `text.` from a second file of
the families open_clip_convnext (convnext_large_d_320: `fcclip_cocopan.pth`) or open_clip_resnet.
Alone, a file converts to a head. The classifier reads names, so it is not bound to the 133 classes
of COCO it was trained with; the class matrix is made by `python -m clouds_jax.text`.
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
