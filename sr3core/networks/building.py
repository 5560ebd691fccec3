"""The network of a model, of any architecture."""

from sr3core.hyperparameters import ModelConfig
from sr3core.networks.imported.guided_diffusion import GuidedDiffusionUNet
from sr3core.networks.imported.iterative_refinement import IterativeRefinementUNet
from sr3core.networks.network import Network
from sr3core.networks.unet import UNet


def build_network(model: ModelConfig) -> Network:
    """Make a model's network, on torch's default device."""
    if model.unet.architecture == "refinement":
        return IterativeRefinementUNet(model.unet)
    if model.unet.architecture == "guided_diffusion":
        return GuidedDiffusionUNet(model.unet, model.noise_schedule)
    return UNet(model.unet)
