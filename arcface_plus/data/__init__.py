"""From files to images: what a net is trained on and what it is verified on.

- ``settings``: the sections ``data`` and ``data.augment`` of a configuration.
- ``images``: decode, encode, resize.
- ``image_headers``: formats and sizes without decoding; what is too large to decode; limits.
- ``lazy_images``: sequences of images decoded when asked for: ``ImageSequence`` (what any function
  takes), ``ImageSource`` (with labels), image files, encoded images.
- ``image_check``: every image looked at once: decoding, size, exact copies.
- ``folder_check``: what is wrong with a folder of people (``data check``).
- ``problems``: what checks say.
- ``onnx_files``: what an ONNX file may refer to.
- ``folder``: ``PERSON/IMAGE`` folders; which files and folders count.
- ``alignment``: faces cut to ArcFace's template by five landmarks.
- ``collections``: what embeddings are exported from: a folder, a record file or a pair set.
- ``people_split``: people to train on, others to test on.
- ``ijb_meta``: the lists of IJB-B and IJB-C: templates, 1:1 pairs, galleries and probes.

Sub-folders: ``records`` (InsightFace's train.rec), ``pairs`` (pair sets), ``faces`` (photographs to
crops), ``sources`` (training data by name), ``batches`` (order, augmentation, loading), ``pickles``
(data out of pickles).
"""
