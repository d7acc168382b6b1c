"""How near generated slices are to the training slices: whether a model repeats what it was shown."""

import numpy as np
import torch


def nearest_median(images: np.ndarray, train: np.ndarray) -> float:
    """Median over the images of the RMS distance to the nearest training slice, in grey levels.

    Held-out slices give the floor: what is nearer to the training slices than they are is no new slice.

    Args:
        images, train: uint8 [N, S, S], of one S.
    """
    bank = torch.from_numpy(np.array(train)).flatten(1).float()
    queries = torch.from_numpy(np.array(images)).flatten(1).float()
    nearest = torch.cat([torch.cdist(part, bank).min(1).values for part in queries.split(256)])
    return float(nearest.median()) / bank.shape[1] ** 0.5
