"""What leaves the package as files.

- ``embeddings.py``  ``arcface-plus embed``: embeddings of a collection as .npz, .npy or .parquet,
                     made by all ranks in blocks that an interrupted export keeps (``--resume``)
- ``index.py``       ``arcface-plus index remove``: a person's rows leave a file of embeddings
"""
