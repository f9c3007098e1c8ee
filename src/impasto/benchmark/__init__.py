"""What training, painting, the losses and the reference cost: ratios measured side by side."""
