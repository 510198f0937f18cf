"""Other nets that a run learns from or stays compatible with: what they made of its images.

guides     train.teacher and train.compatible_with of a run: opened, checked, made ready
stored     the file of a net's embeddings of the training images: made, checked, looked up
"""
