"""What a picture and its turned copies leave behind when they are taken out of a scatter matrix.

Of N samples, whose scatter around their mean is S, the g copies of a picture are left out; their
centred features are the columns of C. Around the mean of the others, their scatter is S - C A C^T
with A = I + 11^T / (N - g), and the first copy stands at C A e_1. With A = R^2, U = C R and
K = U^T B^-1 U, where B is S with what lies on its diagonal, Woodbury's identity gives the squared
distance of the first copy to the scatter of the others, r^T (I - K)^-1 K r with r = R e_1. No fit
is repeated. With one copy this is the formula of Sherman and Morrison (1950).

A blended scatter is a sum of such matrices over neighbouring positions: their columns stand beside
each other in U, each position's times the root of its weight (`edge_ad.models.pooling`).
"""

import torch
from torch import Tensor

SMALLEST_SHARE = 1e-6
"""Of a sample's covariance that is not its own; the smallest that was seen is 0.004."""


def joint_root(copies: int, n_samples: int) -> Tensor:
    """Return R (copies, copies), symmetric, float64, for g copies of a picture among N samples."""
    gain = (n_samples / (n_samples - copies)) ** 0.5 - 1
    root: Tensor = torch.eye(copies, dtype=torch.float64) + gain / copies
    return root


def products_of_copies(columns: Tensor, copies: int) -> Tensor:
    """Multiply the columns (positions, n g, dims) of each picture: (positions, n, g, g)."""
    positions, _, dims = columns.shape
    own = columns.reshape(positions, -1, copies, dims)
    products: Tensor = own @ own.mT
    return products


def without_own(own: Tensor, root: Tensor, centre: int = 0) -> tuple[Tensor, Tensor]:
    """Measure the first copy of a picture with the scatter of the other pictures.

    Args:
        own: (..., k g, k g), K = U^T B^-1 U; overwritten.
        root: R (g, g).
        centre: which of the k positions is measured.

    Returns:
        Squared distances (...), not yet times the N - g - 1 that the scatter is divided by, and
        times the weight of the centre; and I - K: (..., k g, k g).
    """
    copies = len(root)
    first = root[:, 0].to(own)
    chosen = slice(centre * copies, (centre + 1) * copies)
    column = own[..., chosen] @ first
    others = own.neg_()
    others.diagonal(dim1=-2, dim2=-1).add_(1).clamp_(min=SMALLEST_SHARE)
    solved: Tensor = torch.linalg.solve(others, column)
    return (solved[..., chosen] @ first).clamp(min=0), others
