"""Training of a network for any painting, on as many paintings as there are."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from impasto.choices import LossOptions
from impasto.networks import load_network
from impasto.networks.adain import AdaINNet
from impasto.networks.predictor import AnyStyleNet, compact_hash, with_basis
from impasto.networks.reading import (
    LAYERS,
    SIDE,
    AnyPaintingNet,
    StyleStatistics,
    for_reading,
    style_statistics,
)
from impasto.perceptual.features import FeatureNetwork
from impasto.perceptual.gaps import PhotoStatistics
from impasto.perceptual.loss import PerceptualLoss
from impasto.perceptual.target import ByKey, StyleTarget, squared_error
from impasto.training.module import Compiled, StyleTraining
from impasto.training.resume import check_size
from impasto.training.views import PaintingViews, found

Method = Literal["predictor", "adain"]
SHOWN = 4  # held-out paintings of validation and previews
CONSTANTS_FROM = 256  # views from which the constants of the predictor are computed
OWN_EVERY = 16  # of so many photos, one is painted in its own style too
# Mean squared difference of the pixels of two unrelated photos.
PIXEL_GAP = 0.12


class AnyStyles(StyleTraining):
    """Trains one network for any painting, on many paintings.

    Every sample learns a view of one painting, and a quarter of them a mixture of two. All views
    are measured once, before the first step. A view takes 1.2 MB of memory.

    Departure: Huang & Belongie compare AdaIN's pictures with the aligned features, and with the
    painting's means and deviations. Here both methods learn by the loss of all other networks, so
    that they can be compared.

    Args:
        paintings: folders and files of paintings; each of them is drawn equally often.
        method: how the network takes a painting. predictor: a transform network, whose mixture of
            basis styles is predicted. adain: adaptive instance norm, of half the arithmetic.
        held_out: folders and files that are kept out of training, for validation and previews.
        views: how many views of a painting to learn: the whole, then random parts of it.
        limit: how many paintings of each folder to learn; if not given, all.
        style_size: longer side in pixels at which whole paintings are learned.
        basis: number of basis styles, of which codes are weights; for the predictor alone.
        width: channels of the network at full resolution.
        residual_blocks: residual blocks of the network; for the predictor alone.
        start_from: a trained network to start from, a published name or a file, of the same width
            and residual blocks; its styles become basis styles. With adain: a network of this kind.
        canvas: standard deviation, in grey levels, of a faint pattern added to every photo.
        loss: the perceptual loss.
        learning_rate: highest learning rate of Muon, for all convolutions but the last; Adam, for
            all other parameters, has a tenth of it.
        warmup_steps: steps over which the learning rate rises linearly; it falls to 0 over the
            last 30 % of the run.
        gap_photos: photos on which the balance of the loss is measured, once; at least 2.
        own_weight: weight of the error of a photo painted in its own style, as a fraction of the
            difference of unrelated photos.
        shift_weight: weight of the squared difference between the painting of a shifted photo and
            the shifted painting.
        temporal_weight: weight of the squared difference between the painting of the next frame
            and the painting moved there, for photos that move as if filmed; as a fraction of that
            of unrelated paintings. It keeps video steady. Crops are then 32 pixels smaller, and
            every fourth is painted twice. `shift_weight` must be 0.
        feature_weight: weight of the same difference in the network's features.
        compile: compile network and loss of the training steps: true, or a mode of torch.compile.
    """

    network: AnyPaintingNet
    views: PaintingViews
    shown_views: PaintingViews
    photos: PhotoStatistics | None

    def __init__(
        self,
        paintings: str | list[str],
        method: Method = "predictor",
        held_out: str | list[str] = [],  # noqa: B006  only read
        views: int = 2,
        limit: int | None = None,
        style_size: int = SIDE,
        basis: int = 64,
        width: int = 16,
        residual_blocks: int = 5,
        start_from: str | None = None,
        canvas: float = 3.0,
        loss: LossOptions = LossOptions(),  # noqa: B008  only read
        learning_rate: float = 0.02,
        warmup_steps: int = 100,
        gap_photos: int = 32,
        own_weight: float = 1.0,
        shift_weight: float = 0.0,
        temporal_weight: float = 0.0,
        feature_weight: float = 0.0,
        compile: bool | Compiled = False,
    ) -> None:
        if tuple(loss.scales) != (1.0,) or loss.balance == "dynamic" or loss.combined_weight:
            raise ValueError(
                f"loss.scales {loss.scales}, loss.balance {loss.balance}: for any painting, scales "
                "must be [1.0], and balance relative or fixed"
            )
        if method == "adain" and feature_weight:
            raise ValueError(
                f"feature_weight {feature_weight}: must be 0 with method adain, whose features are "
                "of a frozen network"
            )
        if views < 1 or style_size < 1 or (limit is not None and limit < 1):
            raise ValueError(
                f"views {views}, limit {limit}, style_size {style_size}: must be at least 1"
            )
        paintings, held_out = (
            [given] if isinstance(given, str) else given for given in (paintings, held_out)
        )
        held = found(held_out, [], None)
        kept_out = [file for files in held for file in files]
        folders = found(paintings, kept_out, limit)
        network = _new_network(method, basis, width, residual_blocks, canvas, start_from)
        super().__init__(
            network, style_size, start_from, loss, learning_rate, warmup_steps, gap_photos,
            shift_weight, temporal_weight, feature_weight, compile,
        )  # fmt: skip
        self.folders, self.held_out = folders, kept_out
        self.number_of_views, self.own_weight = views, own_weight

    def prepare_targets(self, loss: PerceptualLoss) -> None:
        """Measure all views of all paintings, and the balance of the loss."""
        reader = FeatureNetwork("compact", LAYERS).to(self.device)
        layers = loss.options.style_layers
        same = loss.options.network == "compact" and loss.options.weights is None
        same = same and set(layers) <= set(LAYERS)

        def measure(view: Tensor) -> tuple[StyleStatistics, ByKey]:
            statistics = style_statistics(reader, view.to(self.device))
            if same:
                return statistics, {(1.0, k): statistics.grams[k] for k in layers}
            return statistics, loss.grams(view.to(self.device))

        photos = self.balance_photos()
        self.photos = PhotoStatistics(**self.restored["photos"]) if self.restored else None
        if photos is not None:
            self.photos = loss.photo_statistics(photos)
        side = self.style_size
        self.views = PaintingViews.measured(self.folders, self.number_of_views, side, measure)
        shown = self.held_out[:SHOWN] or self.folders[0][:SHOWN]
        self.shown_views = PaintingViews.measured([shown], 1, side, measure)
        # Neither is part of the weights: the reader comes with the package.
        self._judges: list[Any] = [loss, reader]
        new = self.global_step == 0 and self.restored is None
        if new and isinstance(self.network, AnyStyleNet):
            self.network.predictor.fit_constants(self._sampled_statistics())

    def _sampled_statistics(self) -> StyleStatistics:
        """Return the statistics of views, drawn as in training."""
        drawn = [self.views.draw(number, 0)[0][0] for number in range(CONSTANTS_FROM)]
        return self.views.at(torch.tensor(drawn, device=self.device))[0]

    def samples(self, batch: dict[str, Any]) -> tuple[Float[Tensor, "b n"], StyleTarget]:
        """Return the code and the target of the painting, or mixture, that each sample learns."""
        seed = self.run_config.get("seed", 0)
        drawn = [self.views.draw(number, seed) for number in batch["index"].tolist()]
        pairs = [(views[0], views[-1]) for views, _ in drawn]
        shares = torch.tensor([weights[0] for _, weights in drawn], device=self.device)
        first, second = torch.tensor(pairs, device=self.device).T
        (one, grams), (other, others) = self.views.at(first), self.views.at(second)
        codes = self.network.code_of(one), self.network.code_of(other)
        code = torch.lerp(codes[1], codes[0], shares[:, None])
        mixed = {
            key: torch.lerp(others[key], gram, shares[:, None, None]) for key, gram in grams.items()
        }
        return code, self._judges[0].balanced(mixed, self.photos)

    def further_terms(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the error of photos of the batch painted in their own style: none is wanted.

        So the mixture of a painting and the photo itself is the painting at a lower strength.
        """
        if not self.own_weight:
            return {}
        content = batch["content"]
        first = self.global_step % min(OWN_EVERY, len(content))
        own = content[first::OWN_EVERY]
        code = self.network.code_of(style_statistics(self._judges[1], for_reading(own)))
        error = squared_error(self(own, code), own).mean() / PIXEL_GAP
        return {"own": self.own_weight * error}

    @torch.no_grad()
    def shown(self) -> dict[str, tuple[Float[Tensor, "1 n"], StyleTarget]]:
        """Return code and target of the held-out paintings."""
        shown = {}
        for number, name in enumerate(self.shown_views.names):
            statistics, grams = self.shown_views.at(torch.tensor([number], device=self.device))
            target = self._judges[0].balanced(grams, self.photos)
            shown[name] = self.network.code_of(statistics), target
        return shown

    def balance(self) -> dict[str, Any]:
        """Return the statistics of the photos on which the balance was measured."""
        return {"photos": vars(self.photos)} if self.photos else {}

    def metadata(self) -> dict[str, Any]:
        """Return what the published file records: besides the training, what it read and how."""
        recorded = super().metadata()
        recorded["training"] |= {
            "paintings": len(self.views.names),
            "held_out": [file.name for file in self.held_out],
            "views": self.number_of_views,
            "own_weight": self.own_weight,
        }
        if isinstance(self.network, AnyStyleNet):  # its file does not hold what reads paintings
            recorded["statistics"] = {"network": "compact", "sha256": compact_hash()}
        return recorded


def _new_network(
    method: Method, basis: int, width: int, residual_blocks: int, canvas: float,
    start_from: str | None,
) -> AnyPaintingNet:  # fmt: skip
    """Return the network to train; the arguments are those of `AnyStyles`.

    Raises:
        ValueError: `start_from` is a network of another kind or size.
    """
    other = load_network(start_from) if start_from else None
    if method == "adain":
        decoder = AdaINNet(width, canvas).with_encoder()
        if other is not None:
            if not isinstance(other, AdaINNet):
                raise ValueError(f"start_from {start_from}: not a network of --model.method adain")
            check_size(other, str(start_from), decoder)
            decoder.load_state_dict(other.state_dict())
        return decoder
    network = AnyStyleNet(basis, width, residual_blocks, canvas)
    if other is not None:
        check_size(other, str(start_from), network)
    network.load_state_dict(with_basis(network, other))
    return network
