"""The perceptual loss: frozen loss networks, features by layer, targets and terms."""
