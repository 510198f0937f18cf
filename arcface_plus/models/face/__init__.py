"""Embedding nets; state dicts of all but timm's have the keys of insightface's arcface_torch.

=============  =====================================================================================
iresnet        IResNet-18 to 2060, ArcFace's net (Deng et al., CVPR 2019), and IResNet-SE
mobilefacenet  MobileFaceNet (Chen et al., 2018), small and large
timm_net       any net of the library timm, with ArcFace's head (the extra ``timm``)
vit            vision transformers (Dosovitskiy et al., ICLR 2021), tiny to huge
=============  =====================================================================================
"""
