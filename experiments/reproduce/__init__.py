"""Reproduce published results about dropout with `dropkit.studies`, on 5,000 digits of MNIST."""
