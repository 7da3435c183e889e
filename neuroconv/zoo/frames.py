"""Input of every network of the zoo: still images, or a window of frames."""

from torch import Tensor


def as_frames(images: Tensor, time_steps: int) -> Tensor:
    """Returns images (B, C, H, W) as a constant window (B, C, T, H, W), and frames as they are.

    Raises:
        ValueError: other axes.
    """
    if images.dim() == 4:
        return images.unsqueeze(2).expand(-1, -1, time_steps, -1, -1)
    if images.dim() != 5:
        raise ValueError(
            f"images have shape {tuple(images.shape)}; expected (batch, channels, height, width) "
            "or (batch, channels, time_steps, height, width)"
        )
    return images
