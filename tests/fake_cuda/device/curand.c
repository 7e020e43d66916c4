/* cuRAND: the provider links it, but no graph draws random numbers. */
__attribute__((visibility("default"))) int fake_cuda_curand;
