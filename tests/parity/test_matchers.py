"""Both matchers against GradCAM written out: explicit attention, and autograd with respect to its probabilities."""

from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from torch.nn.functional import interpolate, normalize
from transformers import BlipConfig, BlipForImageTextRetrieval, PreTrainedTokenizerFast

from veridical.pipelines.matching.base import stretch
from veridical.pipelines.matching.blip import BlipMatcher
from veridical.pipelines.matching.open_clip import OpenClipMatcher, UnsupportedMatcher

WORDS = ["[PAD]", "[CLS]", "[SEP]", "is", "there", "a", "dog", "red", "cat", "in", "the", "image", "?"]
PROMPTS = ["is there a dog in the image ?", "a red cat", "the dog"]
MEAN, STD = [0.4, 0.5, 0.6], [0.3, 0.2, 0.25]


def tokenizer():
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[PAD]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 1), ("[SEP]", 2)]
    words.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")


def images():
    draw = torch.Generator().manual_seed(3)
    shapes = ((3, 20, 40), (3, 32, 32), (3, 50, 30))
    return [torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8) for shape in shapes]


def resized(image, side):
    """As the matchers do it, checked on its own in tests/facts."""
    small = interpolate(image[None].float(), size=(side, side), mode="bicubic", antialias=True)
    pixels = (small.round() / 255).clamp(0, 1)
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def explicit(query, key, value, mask=None):
    """Attention with its probabilities in the graph. (head, row, head_dim) each."""
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + mask
    probabilities = scores.softmax(-1)
    probabilities.requires_grad_()
    return probabilities, probabilities @ value


# ---------------------------------------------------------------------- BLIP


@pytest.fixture(scope="module")
def blip():
    torch.manual_seed(0)
    text = {"vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 8,
            "num_attention_heads": 4, "encoder_hidden_size": 24, "max_position_embeddings": 40, "bos_token_id": 1,
            "sep_token_id": 2, "pad_token_id": 0, "projection_dim": 16}  # fmt: skip
    vision = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 32, "patch_size": 8, "projection_dim": 16}  # fmt: skip
    model = BlipForImageTextRetrieval(BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=16))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape) * (weight.shape[-1] ** -0.5 if weight.dim() > 1 else 0.1))
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1.0)
    processor = SimpleNamespace(tokenizer=tokenizer(), image_processor=SimpleNamespace(image_mean=MEAN, image_std=STD))
    return BlipMatcher(model, processor, "tiny")


def blip_reference(matcher, image, prompt, layer):
    """One image and its prompt: every step of the spec, cross-attention written out, autograd on C."""
    model, heads = matcher.model, 4
    ids = torch.tensor([matcher.processor.tokenizer(prompt).input_ids[:35]])
    seen = model.vision_model(pixel_values=resized(image, 32)).last_hidden_state
    block, kept = model.text_encoder.encoder.layer[layer].crossattention.self, {}
    split = lambda tensor: tensor.unflatten(-1, (heads, -1)).transpose(1, 2)

    def written_out(module, given, named, output):
        hidden = given[0] if given else named["hidden_states"]
        query, key, value = split(module.query(hidden)), split(module.key(seen)), split(module.value(seen))
        kept["C"], out = explicit(query, key, value)
        return out.transpose(1, 2).flatten(2), kept["C"]

    hook = block.register_forward_hook(written_out, with_kwargs=True)
    with torch.enable_grad():
        report = model(input_ids=ids, pixel_values=resized(image, 32), use_itm_head=True)
        (gradient,) = torch.autograd.grad(report.itm_score[0, 1], kept["C"])
    hook.remove()
    words = (kept["C"] * gradient.clamp(min=0))[0].mean(0)[1:-1, 1:].mean(0).detach()
    cosine = model(input_ids=ids, pixel_values=resized(image, 32), use_itm_head=False).itm_score[0, 0]
    return (words - words.min()) / (words.max() - words.min()), float(cosine)


def test_blips_map_is_gradcam_of_its_cross_attention_and_its_similarity_the_itc_cosine(blip):
    """A batch with prompts of three lengths against one at a time without padding; 1e-5, from sums in another order."""
    for image, prompt, match in zip(images(), PROMPTS, blip.match(images(), PROMPTS), strict=True):
        expected, cosine = blip_reference(blip, image, prompt, 6)
        assert match.relevance.shape == (4, 4)
        torch.testing.assert_close(match.relevance.flatten(), expected, rtol=0, atol=1e-5)
        assert match.similarity == pytest.approx(cosine, abs=1e-6)


def test_another_layer_of_blip_gives_another_map(blip):
    other = BlipMatcher(blip.model, blip.processor, "tiny", layer=5)
    (built,) = other.match(images()[:1], PROMPTS[:1])
    torch.testing.assert_close(built.relevance.flatten(), blip_reference(blip, images()[0], PROMPTS[0], 5)[0])
    assert (built.relevance - blip.match(images()[:1], PROMPTS[:1])[0].relevance).abs().max() > 1e-2
    assert other.id != blip.id
    with pytest.raises(ValueError, match=r"BLIP's matcher asks for layers \[8\]"):
        BlipMatcher(blip.model, blip.processor, "tiny", layer=8)


def test_blip_starts_with_enc_for_matching_alone_where_the_vocabulary_has_it(blip, monkeypatch):
    from veridical.pipelines.matching import blip as matcher_blip

    plain = blip.match(images()[:1], PROMPTS[:1])[0]
    monkeypatch.setattr(matcher_blip, "_VOCABULARY", len(WORDS))
    monkeypatch.setattr(matcher_blip, "_ENC", 7)
    started = blip.match(images()[:1], PROMPTS[:1])[0]
    assert (started.relevance - plain.relevance).abs().max() > 1e-3
    assert started.similarity == plain.similarity


def test_a_prompt_without_words_and_one_longer_than_blip_reads_are_matched(blip):
    empty, long, cut = blip.match([images()[0]] * 3, ["", "a dog " * 40, "a dog " * 16 + "a"])
    assert empty.relevance.abs().max() == 0
    torch.testing.assert_close(long.relevance, cut.relevance)


def embeddings_give_similarities(matcher, prompts):
    """1e-6: texts beside longer ones are padded, where a match's own stood alone."""
    products = matcher.image_embeddings(images()) @ matcher.text_embeddings(prompts).T
    assert products.shape == (3, len(prompts))
    for column, prompt in enumerate(prompts):
        alone = [match.similarity for match in matcher.match(images(), [prompt] * 3)]
        torch.testing.assert_close(products[:, column], torch.tensor(alone), rtol=0, atol=1e-6)


def test_products_of_blips_embeddings_are_the_similarities_of_its_matches(blip):
    embeddings_give_similarities(blip, PROMPTS)


# ---------------------------------------------------------------------- open_clip


@pytest.fixture(scope="module", params=["tok", "avg"])
def clip(request):
    import open_clip

    torch.manual_seed(1)
    vision = {"image_size": 32, "patch_size": 8, "layers": 3, "width": 24, "head_width": 8, "pool_type": request.param}
    text = {"context_length": 12, "vocab_size": len(WORDS), "width": 16, "heads": 2, "layers": 1, "pool_type": "eos"}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)
    model.visual.image_mean, model.visual.image_std = MEAN, STD
    words = tokenizer()
    encode = lambda texts: torch.tensor(words(texts, padding="max_length", max_length=12, truncation=True).input_ids)
    return OpenClipMatcher(model, encode, "tiny", layer=-1)


def clip_reference(matcher, image, prompt, layer):
    """The vision transformer block by block; one block's attention written out, autograd on C."""
    visual = matcher.model.visual
    with torch.enable_grad():
        hidden, kept = visual._embeds(resized(image, 32)), None
        for number, block in enumerate(visual.transformer.resblocks):
            if number != layer:
                hidden = block(hidden)
                continue
            normed, attention = block.ln_1(hidden), block.attn
            packed = normed @ attention.in_proj_weight.T + attention.in_proj_bias
            query, key, value = (part.unflatten(-1, (3, 8)).transpose(1, 2) for part in packed.chunk(3, dim=-1))
            kept, out = explicit(query, key, value)
            hidden = hidden + attention.out_proj(out.transpose(1, 2).flatten(2))
            hidden = hidden + block.mlp(block.ln_2(hidden))
        image_side = visual._pool(hidden)[0] @ visual.proj
        text_side = matcher.model.encode_text(matcher.tokenizer([prompt]))
        cosine = (normalize(image_side, dim=-1) * normalize(text_side, dim=-1)).sum()
        (gradient,) = torch.autograd.grad(cosine, kept)
    return stretch((kept * gradient.clamp(min=0))[0].mean(0).sum(0)[1:].detach()), cosine.item()


@pytest.mark.parametrize("layer", [0, 2])
def test_open_clips_map_is_gradcam_of_its_attention_and_its_similarity_the_cosine(clip, layer):
    """A batch against one at a time; 1e-4 on maps from 0 to 1, whose slopes before stretching are small."""
    matcher = OpenClipMatcher(clip.model, clip.tokenizer, "tiny", layer=layer)
    for image, prompt, match in zip(images(), PROMPTS, matcher.match(images(), PROMPTS), strict=True):
        expected, cosine = clip_reference(matcher, image, prompt, layer)
        torch.testing.assert_close(match.relevance.flatten(), expected, rtol=0, atol=1e-4)
        assert match.similarity == pytest.approx(cosine, abs=1e-6)


def test_products_of_open_clips_embeddings_are_the_similarities_of_its_matches(clip):
    embeddings_give_similarities(clip, PROMPTS)


def test_the_map_depends_on_the_prompt_and_the_layer(clip):
    assert clip.layer == 2
    one, two = clip.match([images()[0]] * 2, PROMPTS[:2])
    assert (one.relevance - two.relevance).abs().max() > 1e-2
    assert OpenClipMatcher(clip.model, clip.tokenizer, "tiny", layer=1).id != clip.id


def test_matching_leaves_no_hook_and_no_gradient_behind(clip, blip):
    for matcher in (clip, blip):
        matcher.match(images(), PROMPTS)
        assert not any(module._forward_hooks for module in matcher.model.modules())
        assert all(weight.grad is None for weight in matcher.model.parameters())


def test_a_model_without_a_plain_vision_transformer_is_refused():
    import open_clip

    text = {"context_length": 12, "vocab_size": 9, "width": 16, "heads": 2, "layers": 1}
    resnet = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
    pooled = {"image_size": 32, "patch_size": 8, "layers": 1, "width": 24, "head_width": 8, "attentional_pool": True}
    for vision, found in ((resnet, "ModifiedResNet"), (pooled, "VisionTransformer")):
        model = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)
        with pytest.raises(UnsupportedMatcher, match=f"no vision transformer whose attention.*found {found}"):
            OpenClipMatcher(model, None, "other")
