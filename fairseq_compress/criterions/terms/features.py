"""Feature maps: MobileBERT's losses of outputs of layers (arXiv:2004.02984)."""

from fairseq_compress.compat import fairseq_options
from fairseq_compress.criterions.terms.layers import PairTerm, TransferOptions
from fairseq_compress.functional.losses.layer_losses import feature_loss, mean_loss, variance_loss
from fairseq_compress.options import option


@fairseq_options
class FeatureOptions(TransferOptions):
    """Options of :class:`Feature`, :class:`FeatureMean` and :class:`FeatureVariance`."""

    feature_weight: float = option(
        0.0, "weight of the squared distance between normalized layer outputs", range="[0, inf)"
    )
    feature_mean_weight: float = option(
        0.0, "weight of the squared difference between the means of layer outputs", range="[0, inf)"
    )
    feature_variance_weight: float = option(
        0.0, "weight of the absolute difference between the variances of layer outputs", range="[0, inf)"
    )


class Feature(PairTerm):
    """Squared distance of layer-normalized outputs."""

    name = "feature"
    options = FeatureOptions
    pair_loss = staticmethod(feature_loss)


class FeatureMean(PairTerm):
    """Squared difference of the means, which a layer norm removes."""

    name = "feature_mean"
    options = FeatureOptions
    pair_loss = staticmethod(mean_loss)


class FeatureVariance(PairTerm):
    """Absolute difference of the variances, which a layer norm removes."""

    name = "feature_variance"
    options = FeatureOptions
    pair_loss = staticmethod(variance_loss)
