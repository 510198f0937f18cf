"""Nets that others trained, as nets to train on.

ir_layout   the IR nets of AdaFace and CVLface: their weights under the names of our IResNet
onnx_net    an ONNX file as a network with parameters (the extra ``onnx2torch``)
"""
