"""From photographs to aligned faces.

- ``crops``: ``align_image``, which face of several counts, sequences of crops.
- ``detectors``: ``open_detector`` by name or file; ``find_faces`` in images of any size.
- ``face``: what a detector is and gives; overlapping boxes.
- ``mtcnn``, ``yunet``, ``scrfd``: a detector each. ``onnx_file``: how their networks are opened.
"""
