"""From photographs to aligned faces.

- ``crops``: ``align_image``, which face of several counts, sequences of crops.
- ``detectors``: ``open_detector`` by name or file; ``find_faces`` in images of any size.
- ``folder``: ``align_folder``: which photographs, how crops are named, what is not done again.
- ``photograph``: one of them; ``workers``: several processes; ``outcomes``: the table.
- ``sheet``: the contact sheet.
- ``face``: what a detector is and gives; overlapping boxes.
- ``mtcnn``, ``yunet``, ``scrfd``: a detector each. ``onnx_file``: how their networks are opened.
"""
