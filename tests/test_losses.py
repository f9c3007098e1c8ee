"""The loss terms against hand-worked answers, invariants, and gradients in float64."""

import math
from collections.abc import Collection, Iterator

import pytest
import torch
from torch import nn

from impasto.choices import LossOptions
from impasto.perceptual.features import FeatureNetwork
from impasto.perceptual.loss import PerceptualLoss, gram_matrix, total_variation
from impasto.perceptual.target import StyleTarget


class TwoLayers(nn.Module):
    """A smooth differentiable loss network small enough for gradcheck, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1).double().requires_grad_(False)
        self.second = nn.Conv2d(4, 5, 3, padding=1, stride=2).double().requires_grad_(False)

    def walk(self, image: torch.Tensor, layers: Collection[str] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        relu1_1 = torch.tanh(self.first(image))
        found = {"relu1_1": relu1_1, "relu4_2": torch.tanh(self.second(relu1_1))}
        yield from ((layer, found[layer]) for layer in layers or found)


class Identity(nn.Module):
    """The image itself as its only feature: terms can be worked out by hand."""

    def walk(self, image: torch.Tensor, layers: Collection[str] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        yield from dict.fromkeys(layers or ("relu1_1", "relu4_2"), image).items()


def options(**changes: object) -> LossOptions:
    return LossOptions(**{"content_layers": {"relu4_2": 1.0}, "style_layers": {"relu1_1": 1.0}, **changes})


def vgg_loss(**changes: object) -> PerceptualLoss:
    torch.manual_seed(0)
    return PerceptualLoss(LossOptions(network="vgg16", weights="random", **changes))


def test_gram_matrix_by_hand() -> None:
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 2, 1, 2)
    assert torch.equal(gram_matrix(features), torch.tensor([[[5.0, 11.0], [11.0, 25.0]]]) / 4)


def test_gram_matrix_has_torchs_gradient_and_keeps_half_precision() -> None:
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gram_matrix, x)
    half = torch.rand(1, 8, 16, 16).bfloat16().requires_grad_()
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        gram_matrix(half).sum().backward()
    assert half.grad is not None and {x.dtype for x in kept} == {torch.bfloat16}


def test_gram_matrix_ignores_where_things_are() -> None:
    features = torch.rand(2, 5, 6, 7, dtype=torch.float64)
    shuffled = features.flatten(2)[..., torch.randperm(42)].view_as(features)
    torch.testing.assert_close(gram_matrix(shuffled), gram_matrix(features))
    assert not torch.allclose(gram_matrix(features.flip(1)), gram_matrix(features))


def test_gram_matrix_is_float32_under_autocast() -> None:
    features = torch.rand(1, 8, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        gram = gram_matrix(features.bfloat16())
    assert gram.dtype == torch.float32
    torch.testing.assert_close(gram, gram_matrix(features.bfloat16().float()), rtol=1e-6, atol=0)


def test_total_variation_by_hand() -> None:
    image = torch.tensor([[0.0, 1.0], [0.5, 0.5]]).expand(1, 3, 2, 2)
    assert total_variation(image).item() == pytest.approx((1 + 0) / 2 + (0.5 + 0.5) / 2)
    assert total_variation(torch.full((1, 3, 4, 4), 0.3)).item() == 0
    assert total_variation(torch.rand(1, 3, 1, 1)).item() == 0


def test_fixed_terms_by_hand() -> None:
    """One pixel a channel: F F^T / 3 is an outer product; the content term is a plain mean square."""
    loss = PerceptualLoss(options(balance="fixed", content_weight=2.0, style_strength=3.0, tv_weight=0.0), Identity())
    style, output, content = (torch.tensor(v).view(1, 3, 1, 1) for v in ([1.0, 0, 0], [0.0, 1, 0], [0.0, 0, 1]))
    terms = loss(output, content, loss.style_target([style]))
    assert terms["content"].item() == pytest.approx(2.0 * 2 / 3)
    assert terms["style"].item() == pytest.approx(3.0 * 2 * (1 / 3) ** 2 / 9)
    assert terms["tv"].item() == 0


def test_relative_terms_are_fractions() -> None:
    """1 for the photos themselves against the style, 1 between unrelated photos, 0 where all is reached."""
    loss = vgg_loss(content_weight=1.0, style_strength=1.0)
    photos, style = torch.rand(6, 3, 32, 32) ** 2, torch.rand(1, 3, 32, 48) * 0.3
    target = loss.style_target([style], photos)
    each = torch.stack([loss(photo, photo, target)["style"] for photo in photos.split(1)])
    assert each.mean().item() == pytest.approx(1, rel=1e-4)
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    distances = [loss(photos[i : i + 1], photos[j : j + 1], target)["content"].item() for i, j in pairs]
    assert sum(distances) / len(pairs) == pytest.approx(1, rel=1e-3)
    assert loss(style, style, target)["style"].item() == pytest.approx(0, abs=1e-6)
    assert loss(style, style, target)["content"].item() == 0


def test_relative_style_does_not_depend_on_the_gram_normalization() -> None:
    class Brighter(FeatureNetwork):
        def walk(
            self, image: torch.Tensor, layers: Collection[str] | None = None
        ) -> Iterator[tuple[str, torch.Tensor]]:
            yield from ((layer, 7 * value) for layer, value in super().walk(image, layers))

    photos, style = torch.rand(4, 3, 32, 32), torch.rand(1, 3, 32, 32) ** 2
    terms = []
    for network in (FeatureNetwork, Brighter):
        torch.manual_seed(0)
        layers = ["relu4_2", *LossOptions().style_layers]
        loss = PerceptualLoss(LossOptions(), network("vgg16", layers, "random"))
        target = loss.style_target([style], photos)
        terms.append(loss(photos[:2], photos[2:], target))
    for name in ("content", "style"):
        assert terms[0][name].item() == pytest.approx(terms[1][name].item(), rel=1e-4)


@pytest.mark.parametrize("balance", ["relative", "fixed"])
@pytest.mark.parametrize("scales", [[1.0], [1.0, 0.5]])
def test_gradients(balance: str, scales: list[float]) -> None:
    torch.manual_seed(1)
    loss = PerceptualLoss(options(balance=balance, scales=scales, tv_weight=0.2), TwoLayers()).double()
    photos, style = torch.rand(3, 3, 6, 8, dtype=torch.float64), torch.rand(1, 3, 5, 5, dtype=torch.float64)
    target = loss.style_target([style], photos)
    content = torch.rand(2, 3, 6, 8, dtype=torch.float64)
    output = torch.rand(2, 3, 6, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sum(loss(x, content, target).values()), output)


def test_scales_sum_the_loss_of_each_scale() -> None:
    changes = {"balance": "fixed", "tv_weight": 0.0}
    output, content, style = torch.rand(3, 1, 3, 64, 64).unbind(0)
    both = PerceptualLoss(options(scales=[1.0, 0.5], **changes), Identity())
    full = PerceptualLoss(options(**changes), Identity())
    small = [nn.functional.interpolate(x, size=32, mode="bilinear", antialias=True) for x in (output, content, style)]
    expected = [full(output, content, full.style_target([style])), full(*small[:2], full.style_target(small[2:]))]
    terms = both(output, content, both.style_target([style]))
    for name in ("content", "style"):
        assert terms[name].item() == pytest.approx(sum(part[name].item() for part in expected), rel=1e-5)


def test_a_batch_of_styles_is_the_mean_of_its_pictures() -> None:
    loss = vgg_loss()
    photos, styles = torch.rand(4, 3, 32, 32), [torch.rand(1, 3, 40, 32), torch.rand(1, 3, 32, 64) ** 3]
    target = loss.style_target(styles, photos)
    output = torch.rand(3, 3, 32, 32)
    index = torch.tensor([1, 0, 1])
    together = loss(output, photos[:3], target.select(index))
    alone = [loss(output[i : i + 1], photos[i : i + 1], target.select(index[i : i + 1])) for i in range(3)]
    for name in ("content", "style"):
        expected = sum(terms[name].item() for terms in alone) / 3
        assert together[name].item() == pytest.approx(expected, rel=1e-4)


def test_a_mixture_of_one_style_is_that_style() -> None:
    loss = vgg_loss()
    photos, styles = torch.rand(3, 3, 32, 32), [torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32) ** 3]
    mixed, single = loss.style_target(styles, photos, mixture=[0.0, 1.0]), loss.style_target(styles[1:], photos)
    for key, gram in single.grams.items():
        torch.testing.assert_close(mixed.grams[key], gram)
        torch.testing.assert_close(mixed.style_gaps[key], single.style_gaps[key])


def test_gaps_come_back_from_json_to_the_last_bit() -> None:
    import json

    loss = vgg_loss(scales=[1.0, 0.5])
    styles = [torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64) ** 3]
    target = loss.style_target(styles, torch.rand(3, 3, 64, 64))
    again: StyleTarget = loss.style_target(styles, gaps=json.loads(json.dumps(target.gaps())))
    for key in target.style_gaps:
        assert torch.equal(again.style_gaps[key], target.style_gaps[key])
    for key in target.content_gaps:
        assert torch.equal(again.content_gaps[key], target.content_gaps[key])


def test_dynamic_weights_follow_the_slower_term() -> None:
    """The style lags (all of it remains), the content is nearly kept: the weight of style must rise."""
    loss = vgg_loss(balance="dynamic")
    photos, style = torch.rand(4, 3, 32, 32), torch.rand(1, 3, 32, 32) ** 4
    target = loss.style_target([style], photos)
    output = (photos + 0.01 * torch.randn_like(photos)).clamp(0, 1).requires_grad_()
    before = loss.dynamic.clone()
    for _ in range(20):
        loss(output, photos, target)
    assert loss.dynamic[1] > before[1] + 0.1
    assert loss.dynamic.sum().item() == pytest.approx(before.sum().item(), rel=1e-5)
    with torch.no_grad():
        kept = loss.dynamic.clone()
        loss(output, photos, target)
    assert torch.equal(loss.dynamic, kept), "an evaluation must not move the weights"


def test_a_content_target_may_be_reused() -> None:
    loss = vgg_loss(secondary_weight=0.5, combined_weight=0.25)
    photos, style = torch.rand(2, 3, 32, 32), torch.rand(1, 3, 32, 32)
    target, output = loss.style_target([style], photos), torch.rand(1, 3, 32, 32)
    kept = loss.content_target(photos[:1], blend=output)
    first, again = loss(output, kept, target), loss(output, kept, target)
    assert first == again and set(first) == {"content", "style", "tv", "secondary", "combined"}
    assert first["combined"] == 0 and first["secondary"] > 0, "the output is the blend, not the photo"


def test_a_secondary_term_is_the_content_of_its_layer() -> None:
    photos, style, output = torch.rand(2, 3, 32, 32), torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    both, alone = vgg_loss(secondary_weight=0.5), vgg_loss(content_layers={"relu3_1": 1.0})
    terms, expected = (loss(output, photos[:1], loss.style_target([style], photos)) for loss in (both, alone))
    assert terms["secondary"].item() == pytest.approx(0.5 * expected["content"].item(), rel=1e-5)
    assert both.weights["secondary"] == 0.5


def test_a_masked_style_asks_nothing_outside_its_mask() -> None:
    loss = vgg_loss(style_layers={"relu1_1": 1.0}, tv_weight=0.0, content_weight=0.0)
    photos, styles = torch.rand(2, 3, 32, 32), [torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32) ** 4]
    left = torch.zeros(1, 1, 32, 32)
    left[..., :16] = 1
    kept = loss.content_target(photos[:1])
    for mixture, first, second in (([1.0, 0.0], True, False), ([0.0, 1.0], False, True)):
        output = photos[:1].clone().requires_grad_()
        target = loss.style_target(styles, photos, mixture, masks=torch.cat([left, 1 - left]))
        loss(output, kept, target)["style"].backward()
        gradient = output.grad
        # relu1_1 sees one pixel around its own
        assert bool(gradient[..., :15].any()) == first and bool(gradient[..., 17:].any()) == second


def test_a_white_mask_is_no_mask() -> None:
    loss = vgg_loss()
    photos, style = torch.rand(2, 3, 32, 32), torch.rand(1, 3, 32, 32)
    plain, masked = (loss.style_target([style], photos, masks=masks) for masks in (None, torch.ones(1, 1, 8, 8)))
    terms = [loss(photos[1:], photos[:1], target)["style"].item() for target in (plain, masked)]
    assert terms[0] == pytest.approx(terms[1], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secondary_weight": 1.0, "secondary_layers": {}}, "secondary_layers: name at least one"),
        ({"combined_weight": -1.0}, "combined_weight -1.0"),
        ({"scales": []}, "scales"),
        ({"scales": [2.0]}, "at most 1"),
        ({"tv_weight": -1.0}, "tv_weight -1.0: must not be negative"),
        ({"style_layers": {}}, "at least one"),
        ({"content_layers": {"relu4_2": 0.0}}, "above 0"),
    ],
)
def test_refusals(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossOptions(**changes)


def test_a_combined_term_needs_its_blend() -> None:
    with pytest.raises(ValueError, match=r"combined_weight 1\.0: is for the optimization"):
        vgg_loss(combined_weight=1.0).content_target(torch.rand(1, 3, 32, 32))


def test_relative_without_photos_is_refused() -> None:
    with pytest.raises(ValueError, match="give at least two"):
        vgg_loss().style_target([torch.rand(1, 3, 32, 32)])


@pytest.mark.parametrize("term", ["content", "style", "tv"])
def test_a_few_steps_lower_each_term(term: str) -> None:
    weights = {"content_weight": 0.0, "style_strength": 0.0, "tv_weight": 0.0}
    loss = vgg_loss(
        **weights | {{"content": "content_weight", "style": "style_strength", "tv": "tv_weight"}[term]: 1.0}
    )
    photos, style = torch.rand(4, 3, 48, 48), torch.rand(1, 3, 48, 48) ** 4
    target = loss.style_target([style], photos)
    output = torch.rand(1, 3, 48, 48).requires_grad_()
    optimizer = torch.optim.Adam([output], 0.02)
    history = []
    for _ in range(10):
        optimizer.zero_grad()
        terms = loss(output, photos[:1], target)
        sum(terms.values()).backward()
        optimizer.step()
        history.append(terms[term].item())
    assert all(math.isfinite(value) for value in history)
    assert history[-1] < 0.8 * history[0]


def test_checkpointing_changes_no_term_and_no_gradient() -> None:
    """Grams of the first block come from bands of the picture, with masks and without."""
    loss = PerceptualLoss(
        LossOptions(network="vgg16", weights="random", content_layers={"relu1_2": 1.0, "relu3_1": 1.0})
    )
    photo, styles = torch.rand(1, 3, 150, 40), [torch.rand(1, 3, 48, 48), torch.rand(1, 3, 40, 40)]
    for masks in (None, (torch.rand(2, 1, 30, 20) > 0.5).float()):
        target = loss.style_target(
            styles, torch.rand(4, 3, 48, 48), None if masks is not None else [0.5, 0.5], masks=masks
        )
        found = []
        for loss.features.checkpointing in (False, True):
            image = photo.flip(-1).requires_grad_()
            terms = loss(image, photo, target)
            sum(terms.values()).backward()
            found.append((terms, image.grad))
        (plain, expected), (checkpointed, gradient) = found
        for name in plain:
            torch.testing.assert_close(checkpointed[name], plain[name])
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
