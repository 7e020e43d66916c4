"""Export of a fine-tuned checkpoint to an artifact: ONNX graphs with fused attention, each checked against the checkpoint."""

from __future__ import annotations

from .exporter import export_checkpoint

__all__ = ["export_checkpoint"]
