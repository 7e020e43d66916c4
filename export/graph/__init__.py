"""ONNX graphs of BERT: the architecture once, and a lowering for each target."""
