"""Nets that others trained, as nets to train on.

ir_layout   the nets of AdaFace and CVLface: their weights under the names of ours
onnx_net    an ONNX file as a network with parameters (the extra ``onnx2torch``)
"""
