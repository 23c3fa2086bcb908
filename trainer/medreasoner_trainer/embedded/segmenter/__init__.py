"""The embedded segmenter (ASM): a U-Net that is told where to look."""
