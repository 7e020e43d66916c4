/* cuRAND: the provider links it, and nothing of ours draws random numbers on the device. */
__attribute__((visibility("default"))) int pretended_curand;
