"""The lowerings to CUDA in fp16: padded batches, and packed ones."""
