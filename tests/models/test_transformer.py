"""Transformers against torch's own layer, and what each token may see."""

import pytest
import torch
from torch import nn

from genbench.models.attention import Attention, Block
from genbench.models.decoder import Decoder
from genbench.models.slots import Dropout, StochasticDepth
from genbench.models.transformer import Transformer

MODELS = [Transformer, Decoder]


def make(model, shape=(2, 12), **settings):
    torch.manual_seed(0)
    return model(input_shape=shape, classes=10, **{"width": 8, "heads": 2, **settings})


@pytest.mark.parametrize("shape", [(1, 40), (3, 8, 12)], ids=str)
@pytest.mark.parametrize(
    ("model", "settings"), [(Transformer, {}), (Transformer, {"pooling": "class_token"}), (Decoder, {})]
)
def test_logits_on_sequences_and_images(model, settings, shape):
    net, x = make(model, shape, patch=4, **settings), torch.randn(5, *shape)
    assert net(x).shape == (5, 10)
    assert torch.equal(net(x), net.head(net.features(x)))
    assert torch.allclose(net(x)[2:3], net(x[2:3]), atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_parameters_are_those_of_the_formula(model):
    """Patches and their bias, positions, 12 w² + 13 w a block, the last norm, the head: GPT-2's count."""
    w, tokens = 32, 40
    net = model(input_shape=(1, 40), classes=10)
    expected = 2 * w + tokens * w + 2 * (12 * w**2 + 13 * w) + 2 * w + 10 * w + 10
    assert sum(p.numel() for p in net.parameters()) == expected == 27_146


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_is_torchs_encoder_layer(causal):
    torch.manual_seed(0)
    block, x = Block(8, 2, causal, "gelu", 0.0).double(), torch.randn(3, 5, 8, dtype=torch.float64)
    layer = nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True).double()
    norm, attention, *_ = block.attention
    second, wide, _, narrow, *_ = block.hidden
    pairs = [(layer.norm1, norm), (layer.self_attn.out_proj, attention.out), (layer.norm2, second)]
    pairs += [(layer.linear1, wide), (layer.linear2, narrow)]
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(attention.qkv.weight)
        layer.self_attn.in_proj_bias.copy_(attention.qkv.bias)
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64) if causal else None
    torch.testing.assert_close(block(x), layer(x, src_mask=mask, is_causal=causal))


def test_a_decoder_does_not_see_the_future_and_an_encoder_does():
    x = torch.randn(3, 2, 12)
    later = x.clone()
    later[:, :, 7:] = torch.randn(3, 2, 5)
    for model, blind in ((Decoder, True), (Transformer, False)):
        net = make(model)
        before, after = (net.outputs(net.tokens(each)) for each in (x, later))
        assert torch.equal(before[:, :7], after[:, :7]) == blind
        assert not torch.allclose(before[:, 7:], after[:, 7:])
    assert not torch.allclose(make(Decoder)(x), make(Decoder)(later))  # the last token sees all


def test_without_positions_the_order_of_tokens_does_not_matter():
    net, x = make(Transformer), torch.randn(3, 2, 12)
    shuffled = x[:, :, torch.randperm(12, generator=torch.Generator().manual_seed(1))]
    assert not torch.allclose(net(x), net(shuffled), atol=1e-5)
    nn.init.zeros_(net.positions.weight)
    assert torch.allclose(net(x), net(shuffled), atol=1e-6)


def test_patches_are_read_row_by_row():
    net, x = make(Transformer, (3, 4, 6), patch=2), torch.randn(2, 3, 4, 6)
    nn.init.zeros_(net.positions.weight)
    weight, bias = net.patches.weight.flatten(1), net.patches.bias
    for token, (row, column) in enumerate((r, c) for r in (0, 2) for c in (0, 2, 4)):
        patch = x[:, :, row : row + 2, column : column + 2].flatten(1)
        assert torch.allclose(net.tokens(x)[:, token], patch @ weight.T + bias, atol=1e-6)


def test_slots():
    net = make(Transformer, depth=3, dropout=0.25)
    assert [drop.p.item() for drop in net.modules() if isinstance(drop, Dropout)] == [0.25] * 6
    assert sum(isinstance(m, StochasticDepth) for m in net.modules()) == 6
    assert sum(isinstance(m, Attention) for m in net.modules()) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 9}, "model.width is 9; accepted: a multiple of model.heads=2"),
        ({"heads": 0}, "model.heads is 0; accepted: an integer of at least 1"),
        ({"patch": 5}, r"Transformer does not fit an input of shape \(2, 12\); accepted: sides that are multiples of"),
        (
            {"patch": 13},
            r"Transformer does not fit .* at least 13 points a side",
        ),
        ({"pooling": "max"}, "model.pooling is 'max'; accepted: mean, class_token"),
        ({"shape": (40,)}, r"Transformer does not fit an input of shape \(40,\)"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        make(Transformer, **settings)
