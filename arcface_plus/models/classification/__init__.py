"""The nets of the MMA paper's tables, for images of 32 × 32 and 64 × 64 pixels.

===========  =======================================================================================
resnet       ResNet-20 to 110 (He et al., CVPR 2016, §4.2)
vgg          VGG-16 and VGG-19 with batch norm (Simonyan and Zisserman, ICLR 2015)
wide_resnet  WRN-16-8 and WRN-28-10 (Zagoruyko and Komodakis, BMVC 2016)
densenet     DenseNet-40-12 (Huang et al., CVPR 2017)
net_parts    what they share: the features that a classifier reads
===========  =======================================================================================
"""
