"""The lowerings to the CPU: fp32 in standard operators, int8 and bf16 in our operators."""
