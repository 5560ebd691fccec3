"""Checkpoints with nothing but the weights to sample with: enough for sampling and a warm start, not for resuming."""

from pathlib import Path

from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]

from sr3core import strict_json
from sr3core.checkpoint import CHECKPOINT_FORMAT_VERSION, CheckpointInfo, sampling_weights, sha256_of
from sr3core.errors import CheckpointError


def write_sampling_state(info: CheckpointInfo, path: Path) -> Path:
    """Write the state.json of a checkpoint that holds only the weights to sample with, and return their path."""
    weights = sampling_weights(info)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**info.state, "sha256": {weights.name: info.state["sha256"][weights.name]}}
    path.write_text(strict_json.dumps(content, indent=1), encoding="utf-8")
    return weights


def export_weights(info: CheckpointInfo, folder: Path, half: bool) -> tuple[Path, Path]:
    """Write a checkpoint's weights to sample with as FOLDER/model.safetensors, and a state.json for it; return both.

    Args:
        info: a verified checkpoint.
        folder: created if it does not exist.
        half: store float16, which loading turns back into float32: half the size, about three decimal digits.

    Raises:
        CheckpointError: a weight is too large for float16.
    """
    source = sampling_weights(info)
    tensors = load_file(source)
    if half:
        tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise CheckpointError(f"{source} holds numbers that float16 cannot; export it as float32")
    folder.mkdir(parents=True, exist_ok=True)
    weights, state = folder / "model.safetensors", folder / "state.json"
    save_file(tensors, weights, {"format": "pt"})
    content = {
        "format_version": CHECKPOINT_FORMAT_VERSION,
        "step": info.step,
        "sha256": {weights.name: sha256_of(weights)},
        "exported_from": info.state["sha256"][source.name],
    }
    state.write_text(strict_json.dumps(content, indent=1), encoding="utf-8")
    return weights, state
