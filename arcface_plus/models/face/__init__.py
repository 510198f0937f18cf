"""Embedding nets; state dicts have the keys of insightface's arcface_torch.

=============  =====================================================================================
iresnet        IResNet-18 to 200, ArcFace's net (Deng et al., CVPR 2019)
mobilefacenet  MobileFaceNet (Chen et al., 2018), small and large
=============  =====================================================================================
"""
