"""The engines that a benchmark times: one file each, behind one small interface, in separate environments."""
