"""CUDA: provider options, buffers, CUDA graphs and runners; they can also be tested on the CPU provider."""
