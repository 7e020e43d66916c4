"""Int8: weights and quantization parameters, and stand-ins for the products of other processors."""
