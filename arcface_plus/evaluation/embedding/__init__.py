"""Images to embeddings, and embeddings in files.

- ``embed.py``      f(x) + f(flip x) with ``EmbeddingOptions``: decoding ahead, autocast, all ranks
- ``cache.py``      embeddings of a pair set kept on disk (``verify --cache``)
- ``npy_files.py``  arrays out of .npz and .npy files that may lie about their sizes
- ``files.py``      pairs of embeddings from an .npz, with or without a list of pairs
- ``set_files.py``  the forms .npz, .npy and .parquet of embeddings of named images
- ``sets.py``       embeddings of named images, as ``arcface-plus embed`` exports them; their people
- ``baselines.py``  raw pixels: the floor under every trained model
"""
