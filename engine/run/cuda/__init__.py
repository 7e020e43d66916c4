"""CUDA: what a session needs there beyond opening the graph.

``options`` are the provider's, ``placement`` holds every node to the GPU, ``staging`` and ``bound`` are the reused buffers,
``shapes`` keeps one set of them for each shape and captures CUDA graphs, ``runners`` choose between the padded and the
packed graph. What can be tested without a GPU is written so that it runs on the CPU provider too.
"""
