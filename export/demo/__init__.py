"""The demo: banking77 and a pretrained encoder, from training to a bundle that is measured and edited."""
