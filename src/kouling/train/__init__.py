"""Training: recipe -> data -> augmentation -> loss -> loop. Needs the extra `train`."""
