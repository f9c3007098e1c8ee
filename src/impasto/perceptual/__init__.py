"""The perceptual loss: frozen loss networks, their features by layer, content, style and total variation."""
