"""Latent-variable models: one protocol for VAEs, the linear VAE and black-box variational inference.

Every prior is N(0, I). Factories take the generator that draws the parameters, the dtype and the device.
"""

from vaebench.models.adapters import EncoderDecoder, LearnedGaussian, OwnLikelihood, from_encoder_decoder
from vaebench.models.inputs import as_input, as_table, check_input, minibatch
from vaebench.models.linear import LinearVAE, linear_vae
from vaebench.models.mean_field import GaussianRegression, MeanFieldModel, PoissonRegression, mean_field
from vaebench.models.protocol import MODELS, ConjugateModel, LatentModel, gaussian, largest_parameter
from vaebench.models.vae import VAE, conv_vae, deep_gaussian_vae, mlp_vae

__all__ = [
    "MODELS",
    "VAE",
    "ConjugateModel",
    "EncoderDecoder",
    "GaussianRegression",
    "LatentModel",
    "LearnedGaussian",
    "LinearVAE",
    "MeanFieldModel",
    "OwnLikelihood",
    "PoissonRegression",
    "as_input",
    "as_table",
    "check_input",
    "conv_vae",
    "deep_gaussian_vae",
    "from_encoder_decoder",
    "gaussian",
    "largest_parameter",
    "linear_vae",
    "mean_field",
    "minibatch",
    "mlp_vae",
]
