"""The ONNX graph: BERT's equations as nodes."""
