"""What leaves the package as files.

- ``embeddings.py``  ``arcface-plus embed``: embeddings of a collection as .npz, .npy or .parquet,
                     made by all ranks in blocks that an interrupted export keeps (``--resume``)
- ``index.py``       ``arcface-plus index remove``: a person's rows leave a file of embeddings
- ``model.py``       ``arcface-plus export``: which file a name asks for, and in which order a model
                     is written, compared with its source on pairs, and described
- ``onnx_file.py``   one ONNX file, run by onnxruntime and compared before it gets its name
- ``onnx_graph.py``  the graph in the form that clients expect; preprocessing folded into the stem
- ``precision.py``   fp16 and static int8
- ``equalization.py``  channels of equal range, which int8 of mobile nets needs
- ``program.py``     a torch.export program (.pt2)
- ``card.py``        a model card in the layout of the Hugging Face hub
- ``statement.py``   what a file says of itself: preprocessing, version, licences as stated
"""
