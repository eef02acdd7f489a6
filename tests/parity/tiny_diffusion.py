"""A pipeline of Stable Diffusion 2's classes with tiny random weights.

python tests/parity/tiny_diffusion.py FOLDER    # writes it
"""

import sys

import torch

from porting import _torchvision

PROMPTS = ("a photo of a car in fog", "a photo of a bus in rain", "a photo of trees in sun")


def tokenizer():
    _torchvision.prepare()
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = sorted({word for prompt in PROMPTS for word in prompt.split()})
    names = ["<pad>", "<unk>", "<s>", "</s>", *words]
    made = Tokenizer(models.WordLevel({n: i for i, n in enumerate(names)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>", model_max_length=16,
    )  # fmt: skip


def pipeline():
    """Stable Diffusion 2 in small: its classes, v-prediction, a scheduler of its own."""
    _torchvision.prepare()
    import diffusers
    import transformers

    torch.manual_seed(0)
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=16, bos_token_id=2, eos_token_id=3,
        )
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=(2, 4),
        use_linear_projection=True, sample_size=16,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    with torch.no_grad():  # so that images are neither grey nor all alike
        vae.decoder.conv_out.weight *= 8
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
    )  # fmt: skip
    return diffusers.StableDiffusionPipeline(
        vae, text, tokenizer(), unet, scheduler, None, None, requires_safety_checker=False
    )


if __name__ == "__main__":
    pipeline().save_pretrained(sys.argv[1])
